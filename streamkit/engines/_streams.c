/* What each stream begins with and what each chunk goes through, compiled: the Python beside it decides the same.

   `Given` is that of `ready.py`. `Begin` and `Write` are short cuts for one method of one class each: `Begin`
   sets a new stream's fields as the method set those of the first; `Write` takes the commonest chunk, which is
   bytes for which there is room while no reader waits for them. Of all else the method itself decides.

   Rule: the fields are slots of the class that a short cut was made for, so it looks at no other object's; and
   between the first look and the last change no code runs but what is here. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

enum { EDITION = 1 }; /* of what this and the Python have agreed upon; the same number stands in `compiled.py` */

/* ---------------------------------------------------------------- Given */

/* Awaited, it gives its result at once; it is its own iterator, for it has no state. */
typedef struct {
    PyObject_HEAD
    PyObject *result;
} Given;

static PyObject *given_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    PyObject *result;
    if (!PyArg_ParseTuple(args, "O", &result)) {
        return NULL;
    }
    Given *self = (Given *)type->tp_alloc(type, 0);
    if (self != NULL) {
        Py_INCREF(result);
        self->result = result;
    }
    return (PyObject *)self;
}

static int given_traverse(Given *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->result);
    return 0;
}

static int given_clear(Given *self) {
    Py_CLEAR(self->result);
    return 0;
}

static void given_dealloc(Given *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->result);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *itself(PyObject *self) {
    Py_INCREF(self);
    return self;
}

/* For `await`, which needs no exception. */
static PySendResult given_send(Given *self, PyObject *sent, PyObject **result) {
    *result = self->result == NULL ? Py_None : self->result;
    Py_INCREF(*result);
    return PYGEN_RETURN;
}

/* For `yield from` and `next`. */
static PyObject *given_next(Given *self) {
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, self->result == NULL ? Py_None : self->result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyType_Slot given_slots[] = {
    {Py_tp_new, given_new},
    {Py_tp_traverse, given_traverse},
    {Py_tp_clear, given_clear},
    {Py_tp_dealloc, given_dealloc},
    {Py_tp_iter, itself},
    {Py_tp_iternext, given_next},
    {Py_am_await, itself},
    {Py_am_send, given_send},
    {0, NULL},
};

static PyType_Spec given_spec = {
    "streamkit.engines._streams.Given", sizeof(Given), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, given_slots,
};

/* ---------------------------------------------------------------- methods */

enum { MOST = 64 };

/* A short cut for a method, and for its class only. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyTypeObject *class;
    PyObject *in_full; /* the method in Python */
    Py_ssize_t count;
    struct {
        Py_ssize_t place; /* of a slot in an instance */
        PyObject *value;  /* with which it begins */
    } fields[MOST];
} Method;

static inline PyObject **field(Method *self, PyObject *stream, Py_ssize_t which) {
    return (PyObject **)((char *)stream + self->fields[which].place);
}

static inline int fits(Method *self, PyObject *const *args, size_t flags, PyObject *names, Py_ssize_t wanted) {
    return names == NULL && PyVectorcall_NARGS(flags) == wanted && PyObject_TypeCheck(args[0], self->class);
}

static PyObject *method_get(PyObject *self, PyObject *stream, PyObject *class) {
    return stream == NULL || stream == Py_None ? itself(self) : PyMethod_New(self, stream);
}

static int method_traverse(Method *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->class);
    Py_VISIT(self->in_full);
    for (Py_ssize_t at = 0; at < self->count; at++) {
        Py_VISIT(self->fields[at].value);
    }
    return 0;
}

static void method_dealloc(Method *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->class);
    Py_CLEAR(self->in_full);
    for (Py_ssize_t at = 0; at < self->count; at++) {
        Py_CLEAR(self->fields[at].value);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Note where a slot is in the instances of the class; -1 with an error if it has none of this name. */
static int add_field(Method *self, PyObject *name) {
    PyObject *slot = PyObject_GetAttr((PyObject *)self->class, name);
    PyMemberDef *member = NULL;
    if (slot != NULL && Py_TYPE(slot) == &PyMemberDescr_Type) {
        member = ((PyMemberDescrObject *)slot)->d_member;
    }
    if (member != NULL && member->type == T_OBJECT_EX && self->count < MOST) {
        self->fields[self->count++].place = member->offset;
    }
    else if (slot != NULL) {
        PyErr_Format(PyExc_TypeError, "wanted a slot, one of at most %d, got %R", MOST, slot);
    }
    Py_XDECREF(slot);
    return PyErr_Occurred() ? -1 : 0;
}

/* Type(class, method, names): a short cut that knows the slots of these names. */
static PyObject *made(PyTypeObject *type, vectorcallfunc call, PyObject *class, PyObject *in_full,
                      PyObject *names) {
    Method *self = (Method *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->call = call;
    self->class = (PyTypeObject *)itself(class);
    self->in_full = itself(in_full);
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(names); at++) {
        if (add_field(self, PyTuple_GET_ITEM(names, at)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static PyMemberDef method_members[] = {
    {"__wrapped__", T_OBJECT, offsetof(Method, in_full), READONLY, NULL},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, call), READONLY, NULL},
    {NULL},
};

/* What wrappers and logs ask of a method, as of the Python. */
static PyObject *method_told(Method *self, void *name) {
    return PyObject_GetAttrString(self->in_full, name);
}

static PyGetSetDef method_told_of[] = {
    {"__name__", (getter)method_told, NULL, NULL, "__name__"},
    {"__qualname__", (getter)method_told, NULL, NULL, "__qualname__"},
    {"__doc__", (getter)method_told, NULL, NULL, "__doc__"},
    {"__annotations__", (getter)method_told, NULL, NULL, "__annotations__"},
    {NULL},
};

#define METHOD_SLOTS(new)                                                                           \
    {Py_tp_new, new}, {Py_tp_call, PyVectorcall_Call}, {Py_tp_descr_get, method_get},               \
    {Py_tp_traverse, method_traverse}, {Py_tp_dealloc, method_dealloc},                             \
    {Py_tp_members, method_members}, {Py_tp_getset, method_told_of}

enum {
    METHOD_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR |
                   Py_TPFLAGS_HAVE_VECTORCALL
};

/* ---------------------------------------------------------------- Begin */

static PyObject *begin_call(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names) {
    Method *self = (Method *)callable;
    if (!fits(self, args, flags, names, 1)) {
        return PyObject_Vectorcall(self->in_full, args, flags, names);
    }
    for (Py_ssize_t at = 0; at < self->count; at++) {
        PyObject **place = field(self, args[0], at), *old = *place;
        *place = self->fields[at].value;
        Py_XINCREF(*place);
        Py_XDECREF(old); /* a new stream has none */
    }
    Py_RETURN_NONE;
}

/* Begin(class, method, names, first): all begin as `first` has; a slot that it has not set, they have not. */
static PyObject *begin_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *class, *in_full, *names, *first;
    if (!PyArg_ParseTuple(args, "O!OO!O", &PyType_Type, &class, &in_full, &PyTuple_Type, &names, &first)) {
        return NULL;
    }
    if (!PyObject_TypeCheck(first, (PyTypeObject *)class)) {
        return PyErr_Format(PyExc_TypeError, "wanted an instance of %R, got %R", class, first);
    }
    Method *self = (Method *)made(type, begin_call, class, in_full, names);
    for (Py_ssize_t at = 0; self != NULL && at < self->count; at++) {
        PyObject *value = *field(self, first, at);
        Py_XINCREF(value);
        self->fields[at].value = value;
    }
    return (PyObject *)self;
}

static PyType_Slot begin_slots[] = {METHOD_SLOTS(begin_new), {0, NULL}};

static PyType_Spec begin_spec = {"streamkit.engines._streams.Begin", sizeof(Method), 0, METHOD_FLAGS, begin_slots};

/* ---------------------------------------------------------------- Write */

enum { DIRECT, CHUNKS, ROOM, WAKE, READY };

/* The awaitable of this chunk, which was taken; NULL without an error if that is for the Python to decide. */
static PyObject *taken(Method *self, PyObject *stream, PyObject *chunk) {
    PyObject *chunks = *field(self, stream, CHUNKS), *ready = *field(self, stream, READY);
    PyObject **room = field(self, stream, ROOM);
    if (*field(self, stream, DIRECT) != Py_True || *field(self, stream, WAKE) != Py_None || chunks == NULL ||
        !PyList_CheckExact(chunks) || ready == NULL || !PyDict_CheckExact(ready) || *room == NULL ||
        !PyLong_CheckExact(*room)) {
        return NULL;
    }
    int overflows;
    long long left = PyLong_AsLongLongAndOverflow(*room, &overflows);
    if (overflows || left < PyBytes_GET_SIZE(chunk)) {
        return NULL;
    }
    PyObject *size = PyLong_FromSsize_t(PyBytes_GET_SIZE(chunk));
    PyObject *rest = PyLong_FromLongLong(left - PyBytes_GET_SIZE(chunk));
    PyObject *given = size == NULL || rest == NULL ? NULL : PyDict_GetItemWithError(ready, size);
    Py_XDECREF(size);
    if (given == NULL || PyList_Append(chunks, chunk) < 0) {
        Py_XDECREF(rest);
        return NULL;
    }
    Py_INCREF(given);
    Py_SETREF(*room, rest);
    return given;
}

static PyObject *write_call(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names) {
    Method *self = (Method *)callable;
    if (fits(self, args, flags, names, 2) && PyBytes_CheckExact(args[1]) && PyBytes_GET_SIZE(args[1]) > 0) {
        PyObject *given = taken(self, args[0], args[1]);
        if (given != NULL || PyErr_Occurred()) {
            return given;
        }
    }
    return PyObject_Vectorcall(self->in_full, args, flags, names);
}

/* Write(class, method) */
static PyObject *write_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *class, *in_full;
    if (!PyArg_ParseTuple(args, "O!O", &PyType_Type, &class, &in_full)) {
        return NULL;
    }
    PyObject *names = Py_BuildValue("(sssss)", "_direct", "_chunks", "_room", "_wake", "_ready");
    PyObject *self = names == NULL ? NULL : made(type, write_call, class, in_full, names);
    Py_XDECREF(names);
    return self;
}

static PyType_Slot write_slots[] = {METHOD_SLOTS(write_new), {0, NULL}};

static PyType_Spec write_spec = {"streamkit.engines._streams.Write", sizeof(Method), 0, METHOD_FLAGS, write_slots};

/* ---------------------------------------------------------------- the module */

static int prepare(PyObject *module) {
    PyType_Spec *specs[] = {&given_spec, &begin_spec, &write_spec};
    for (size_t at = 0; at < sizeof specs / sizeof *specs; at++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[at], NULL);
        int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (added < 0) {
            return -1;
        }
    }
    return PyModule_AddIntConstant(module, "EDITION", EDITION);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, prepare},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_streams",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__streams(void) {
    return PyModuleDef_Init(&definition);
}
