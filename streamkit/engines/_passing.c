/* What every request costs that does not stream, compiled: the Python beside it decides the same.

   Each function here knows the commonest case only (a body that is a list, heads like the last one,
   dicts and lists of exactly these types) and leaves every other to the method it is a short cut for:
   `_start_in_full` and `_send_in_full`, and the middleware's own look. `passing.py` says what is shared.

   Rule: nothing is raised here that the Python would not raise, and nothing is decided by guess. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

enum { EDITION = 1 }; /* of what this and the Python have agreed upon; the same number stands in `compiled.py` */

/* ---------------------------------------------------------------- what `share` was given */

typedef struct {
    PyObject *key; /* where a request's stream stands; NULL before `share` */
    PyTypeObject *answer_type, *messages_type;
    PyObject *phase_new, *phase_held, *phase_passing, *phase_over;
    PyObject *marks;                                             /* a list, empty while no head was marked */
    PyObject *plain_types;                                       /* a frozenset of Content-Types, as bytes */
    PyObject *nothing, *both;                                    /* coroutine functions */
    PyObject *outer, *start_in_full, *send_in_full, *plain_head; /* names of attributes */
    PyObject *type, *headers, *more_body;                        /* keys of messages */
    PyObject *start_kind, *body_kind;                            /* types of messages */
} Shared;

#define EACH_SHARED(DO, s)                                                                          \
    DO(s->key) DO(s->answer_type) DO(s->messages_type) DO(s->phase_new) DO(s->phase_held)           \
    DO(s->phase_passing) DO(s->phase_over) DO(s->marks) DO(s->plain_types) DO(s->nothing)           \
    DO(s->both) DO(s->outer) DO(s->start_in_full) DO(s->send_in_full) DO(s->plain_head)             \
    DO(s->type) DO(s->headers) DO(s->more_body) DO(s->start_kind) DO(s->body_kind)

/* ---------------------------------------------------------------- small helpers */

static inline void put(PyObject **field, PyObject *value) {
    PyObject *old = *field;
    Py_INCREF(value);
    *field = value;
    Py_XDECREF(old);
}

/* A pair of a head at this place; NULL where it is none of the usual kind. */
static inline PyObject *pair_at(PyObject *headers, Py_ssize_t at) {
    PyObject *pair = PyList_GET_ITEM(headers, at);
    return PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 ? pair : NULL;
}

/* The length of a header's name; -1 if it is neither text nor bytes. */
static inline Py_ssize_t name_size(PyObject *pair) {
    PyObject *name = PyTuple_GET_ITEM(pair, 0);
    if (PyUnicode_CheckExact(name)) {
        return PyUnicode_GET_LENGTH(name);
    }
    return PyBytes_CheckExact(name) ? PyBytes_GET_SIZE(name) : -1;
}

static int is_name(PyObject *name, const char *lowered, Py_ssize_t size) {
    const char *letters = PyBytes_AS_STRING(name);
    if (PyBytes_GET_SIZE(name) != size) {
        return 0;
    }
    for (Py_ssize_t at = 0; at < size; at++) {
        char letter = letters[at];
        if ((letter >= 'A' && letter <= 'Z' ? letter + ('a' - 'A') : letter) != lowered[at]) {
            return 0;
        }
    }
    return 1;
}

/* Whether two names or values are equal, both text or both bytes; False for any other type. */
static inline int is_same(PyObject *one, PyObject *other) {
    if (one == other) {
        return 1;
    }
    if (PyBytes_CheckExact(one) && PyBytes_CheckExact(other)) {
        Py_ssize_t size = PyBytes_GET_SIZE(one);
        return size == PyBytes_GET_SIZE(other) &&
               memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), size) == 0;
    }
    if (!PyUnicode_CheckExact(one) || !PyUnicode_CheckExact(other)) {
        return 0;
    }
    Py_ssize_t size = PyUnicode_GET_LENGTH(one);
    return size == PyUnicode_GET_LENGTH(other) && PyUnicode_IS_COMPACT_ASCII(one) &&
           PyUnicode_IS_COMPACT_ASCII(other) &&
           memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), size) == 0;
}

/* The same of a name and its value; `known` may be anything. */
static inline int is_same_pair(PyObject *pair, PyObject *known) {
    return pair == known || (PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 2 &&
                             is_same(PyTuple_GET_ITEM(pair, 1), PyTuple_GET_ITEM(known, 1)) &&
                             is_same(PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(known, 0)));
}

enum { CONTENT_TYPE = 12, CONTENT_LENGTH = 14, CONTENT_ENCODING = 16 }; /* how long these names are */

/* Whether none but these two fields, where the last plain head had them, could say more: no earlier
   Content-Type, which is the one that counts, and nothing as long as the name that a mark has. */
static int says_no_more(Shared *shared, PyObject *headers, Py_ssize_t type_at) {
    int has_marks = PyList_GET_SIZE(shared->marks) > 0;
    Py_ssize_t end = has_marks ? PyList_GET_SIZE(headers) : type_at;
    for (Py_ssize_t at = 0; at < end; at++) {
        PyObject *pair = pair_at(headers, at);
        if (pair == NULL) {
            return 0;
        }
        Py_ssize_t size = name_size(pair);
        if (size < 0 || (has_marks && size == CONTENT_ENCODING) || (at < type_at && size == CONTENT_TYPE)) {
            return 0;
        }
    }
    return 1;
}

/* Whether a head has its Content-Type and the name of its Content-Length where, and as, the last had. */
static int is_like_last(Shared *shared, PyObject *headers, PyObject *type_place, PyObject *type,
                        PyObject *length_place, PyObject *length) {
    Py_ssize_t size = PyList_GET_SIZE(headers);
    Py_ssize_t type_at = PyLong_AsSsize_t(type_place), length_at = PyLong_AsSsize_t(length_place);
    if ((type_at == -1 || length_at == -1) && PyErr_Occurred()) {
        return -1;
    }
    if (type_at < 0 || length_at < 0 || type_at >= size || length_at >= size) {
        return 0;
    }
    PyObject *typed = pair_at(headers, type_at), *sized = pair_at(headers, length_at);
    return typed != NULL && sized != NULL && is_same_pair(typed, type) &&
           is_same(PyTuple_GET_ITEM(sized, 0), length) && says_no_more(shared, headers, type_at);
}

/* Have the stream stand in its request, and know of one that stood there. */
static int introduce(Shared *shared, PyObject *request, PyObject *stream) {
    int is_dict = PyDict_CheckExact(request);
    PyObject *key = shared->key;
    int has_outer = is_dict ? PyDict_Contains(request, key) : PySequence_Contains(request, key);
    if (has_outer > 0) {
        PyObject *outer = PyObject_GetItem(request, key);
        has_outer = outer == NULL ? -1 : PyObject_SetAttr(stream, shared->outer, outer);
        Py_XDECREF(outer);
    }
    if (has_outer < 0) {
        return -1;
    }
    return is_dict ? PyDict_SetItem(request, key, stream) : PyObject_SetItem(request, key, stream);
}

static int is_shared(Shared *shared) {
    if (shared != NULL && shared->key != NULL) {
        return 1;
    }
    PyErr_SetString(PyExc_RuntimeError, "wanted a stream that was made by its begin function");
    return 0;
}

/* A stream of this class, which has to be a subclass of `base`; its fields are all empty. */
static PyObject *made(Shared *shared, PyObject *const *args, PyTypeObject *base, Py_ssize_t given,
                      Py_ssize_t wanted) {
    if (!is_shared(shared)) {
        return NULL;
    }
    if (given != wanted) {
        return PyErr_Format(PyExc_TypeError, "wanted %zd arguments, got %zd", wanted, given);
    }
    PyTypeObject *class = (PyTypeObject *)args[0];
    if (!PyType_Check(args[0]) || !PyType_IsSubtype(class, base)) {
        return PyErr_Format(PyExc_TypeError, "wanted a subclass of %s, got %R", base->tp_name, args[0]);
    }
    return class->tp_alloc(class, 0);
}

/* ---------------------------------------------------------------- WSGI */

typedef struct {
    PyObject_HEAD
    PyObject *options, *environ, *start_response, *app_status, *app_headers, *plain;
    PyObject *dict, *weakrefs; /* ours, so that a dict is made for what needs one only */
    Shared *shared;            /* lives as long as the type */
} Answer;

#define EACH_OF_ANSWER(DO, self)                                                                    \
    DO(self->options) DO(self->environ) DO(self->start_response) DO(self->app_status)               \
    DO(self->app_headers) DO(self->plain) DO(self->dict)

static int answer_traverse(Answer *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
#define VISIT(field) Py_VISIT(field);
    EACH_OF_ANSWER(VISIT, self)
    return 0;
}

static int answer_clear(Answer *self) {
#define CLEAR(field) Py_CLEAR(field);
    EACH_OF_ANSWER(CLEAR, self)
    return 0;
}

static void answer_dealloc(Answer *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    answer_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* `start_response` for the application: its first call is kept. */
static PyObject *answer_start(Answer *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    if (names == NULL && (count == 2 || (count == 3 && args[2] == Py_None)) && self->app_status == Py_None) {
        put(&self->app_headers, args[1]);
        put(&self->app_status, args[0]);
        Py_INCREF(self);
        return (PyObject *)self;
    }
    if (!is_shared(self->shared)) {
        return NULL;
    }
    PyObject *in_full = PyObject_GetAttr((PyObject *)self, self->shared->start_in_full);
    if (in_full == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(in_full, args, count, names);
    Py_DECREF(in_full);
    return result;
}

/* is_like(body, plain_type, whole): whether this answer is like the last that was no stream's. `whole`
   says that of bodies that are no list: their type, and where Content-Type and Content-Length were. */
static PyObject *answer_is_like(Answer *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "wanted 3 arguments, got %zd", count);
    }
    if (!is_shared(self->shared)) {
        return NULL;
    }
    PyObject *body = args[0], *plain_type = args[1], *whole = args[2], *headers = self->app_headers;
    int like = 0;
    if (self->plain != Py_True || self->app_status == Py_None || headers == NULL ||
        !PyList_CheckExact(headers) || PyList_GET_SIZE(headers) == 0) {
        Py_RETURN_FALSE;
    }
    if (PyList_CheckExact(body) || PyTuple_CheckExact(body)) {
        PyObject *first = pair_at(headers, 0);
        like = first != NULL && is_same_pair(first, plain_type) && says_no_more(self->shared, headers, 0);
    }
    else if (PyTuple_CheckExact(whole) && PyTuple_GET_SIZE(whole) == 5 &&
             PyTuple_GET_ITEM(whole, 0) == (PyObject *)Py_TYPE(body)) {
        like = is_like_last(self->shared, headers, PyTuple_GET_ITEM(whole, 1), PyTuple_GET_ITEM(whole, 2),
                            PyTuple_GET_ITEM(whole, 3), PyTuple_GET_ITEM(whole, 4));
    }
    return like < 0 ? NULL : PyBool_FromLong(like);
}

static PyMemberDef answer_members[] = {
    {"options", T_OBJECT_EX, offsetof(Answer, options), 0, NULL},
    {"environ", T_OBJECT_EX, offsetof(Answer, environ), 0, NULL},
    {"start_response", T_OBJECT_EX, offsetof(Answer, start_response), 0, NULL},
    {"app_status", T_OBJECT_EX, offsetof(Answer, app_status), 0, NULL},
    {"app_headers", T_OBJECT_EX, offsetof(Answer, app_headers), 0, NULL},
    {"plain", T_OBJECT_EX, offsetof(Answer, plain), 0, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Answer, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Answer, weakrefs), READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(start_doc, "start($self, status, headers, exc_info=None)\n--\n\n"
                        "PEP 3333's `start_response`: kept until it is known whether this is a stream.");

static PyMethodDef answer_methods[] = {
    {"start", (PyCFunction)(void (*)(void))answer_start, METH_FASTCALL | METH_KEYWORDS, start_doc},
    {"is_like", (PyCFunction)(void (*)(void))answer_is_like, METH_FASTCALL, NULL},
    {NULL},
};

static PyGetSetDef with_dict[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL},
};

static PyType_Slot answer_slots[] = {
    {Py_tp_traverse, answer_traverse},
    {Py_tp_clear, answer_clear},
    {Py_tp_dealloc, answer_dealloc},
    {Py_tp_members, answer_members},
    {Py_tp_methods, answer_methods},
    {Py_tp_getset, with_dict},
    {0, NULL},
};

static PyType_Spec answer_spec = {
    "streamkit.engines._passing.PassingAnswer", sizeof(Answer), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, answer_slots,
};

/* begin_answer(class, options, environ, start_response) */
static PyObject *begin_answer(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Shared *shared = PyModule_GetState(module);
    Answer *self = (Answer *)made(shared, args, shared->answer_type, count, 4);
    if (self == NULL) {
        return NULL;
    }
    self->shared = shared;
    put(&self->options, args[1]);
    put(&self->environ, args[2]);
    put(&self->start_response, args[3]);
    put(&self->app_status, Py_None);
    put(&self->plain, Py_True);
    if (introduce(shared, args[2], (PyObject *)self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---------------------------------------------------------------- ASGI */

typedef struct {
    PyObject_HEAD
    PyObject *middleware, *scope, *server_receive, *server_send, *phase, *touched, *start;
    PyObject *dict, *weakrefs;
    Shared *shared;
} Messages;

#define EACH_OF_MESSAGES(DO, self)                                                                  \
    DO(self->middleware) DO(self->scope) DO(self->server_receive) DO(self->server_send)             \
    DO(self->phase) DO(self->touched) DO(self->start) DO(self->dict)

static int messages_traverse(Messages *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    EACH_OF_MESSAGES(VISIT, self)
    return 0;
}

static int messages_clear(Messages *self) {
    EACH_OF_MESSAGES(CLEAR, self)
    return 0;
}

static void messages_dealloc(Messages *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    messages_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Hand a message to the server. */
static PyObject *forward(Messages *self, PyObject *message) {
    PyObject *send = self->server_send; /* the call may replace it */
    if (send == NULL) {
        PyErr_SetString(PyExc_AttributeError, "server_send");
        return NULL;
    }
    Py_INCREF(send);
    PyObject *sent = PyObject_CallOneArg(send, message);
    Py_DECREF(send);
    return sent;
}

enum { LAST, NOT_LAST, UNUSUAL };

/* Whether no message follows this one. What is neither True nor False might run any code if it was asked. */
static int place_of(Shared *shared, PyObject *message) {
    PyObject *more = PyDict_GetItemWithError(message, shared->more_body);
    if (more == NULL) {
        return PyErr_Occurred() ? -1 : LAST;
    }
    return more == Py_False ? LAST : more == Py_True ? NOT_LAST : UNUSUAL;
}

/* Whether a head is plain by all that it says and has no length: what follows it decides. */
static int is_held(Shared *shared, PyObject *headers) {
    int is_typed = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(headers); at++) {
        PyObject *pair = pair_at(headers, at);
        PyObject *name = pair == NULL ? NULL : PyTuple_GET_ITEM(pair, 0);
        if (name == NULL || !PyBytes_CheckExact(name)) {
            return 0;
        }
        switch (PyBytes_GET_SIZE(name)) {
        case CONTENT_ENCODING: /* it may be a mark */
            return 0;
        case CONTENT_LENGTH:
            if (is_name(name, "content-length", CONTENT_LENGTH)) {
                return 0;
            }
            break;
        case CONTENT_TYPE:
            if (!is_typed && is_name(name, "content-type", CONTENT_TYPE)) {
                PyObject *value = PyTuple_GET_ITEM(pair, 1);
                int is_plain = PyBytes_CheckExact(value) ? PySet_Contains(shared->plain_types, value) : 0;
                if (is_plain <= 0) {
                    return is_plain;
                }
                is_typed = 1;
            }
        }
    }
    return 1;
}

/* A head: it goes on, or waits for what follows it. NULL without an error if that is for the Python to say. */
static PyObject *begin(Messages *self, PyObject *message) {
    Shared *shared = self->shared;
    if (self->middleware == NULL) { /* it is being collected */
        return NULL;
    }
    PyObject *known = PyObject_GetAttr(self->middleware, shared->plain_head);
    if (known == NULL) {
        return NULL;
    }
    /* From here on nothing runs but what is here, so that what is borrowed stays. */
    PyObject *headers = PyDict_GetItemWithError(message, shared->headers);
    int is_plain = 0, holds = 0;
    if (headers != NULL && PyList_CheckExact(headers) && self->phase == shared->phase_new &&
        self->touched == Py_False) {
        if (PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 4) {
            is_plain = is_like_last(shared, headers, PyTuple_GET_ITEM(known, 0), PyTuple_GET_ITEM(known, 1),
                                    PyTuple_GET_ITEM(known, 2), PyTuple_GET_ITEM(known, 3));
        }
        if (!is_plain) {
            holds = is_held(shared, headers);
        }
    }
    Py_DECREF(known);
    if (is_plain < 0 || holds < 0) {
        return NULL;
    }
    if (is_plain) {
        put(&self->phase, shared->phase_passing);
        return forward(self, message);
    }
    if (holds) {
        put(&self->start, message);
        put(&self->phase, shared->phase_held);
        return PyObject_CallNoArgs(shared->nothing);
    }
    return NULL;
}

/* A body whose head was held, and which is all: the two go on together. */
static PyObject *send_both(Messages *self, PyObject *message) {
    PyObject *args[] = {self->server_send, self->start, message};
    Py_XINCREF(args[0]);
    Py_INCREF(args[1]);
    put(&self->phase, self->shared->phase_over);
    put(&self->scope, Py_None);
    PyObject *both = NULL;
    if (args[0] == NULL) {
        PyErr_SetString(PyExc_AttributeError, "server_send");
    }
    else {
        both = PyObject_Vectorcall(self->shared->both, args, 3, NULL);
    }
    Py_XDECREF(args[0]);
    Py_DECREF(args[1]);
    return both;
}

/* `send` for the application. */
static PyObject *messages_send(Messages *self, PyObject *message) {
    Shared *shared = self->shared;
    if (!is_shared(shared)) {
        return NULL;
    }
    PyObject *kind = PyDict_CheckExact(message) ? PyDict_GetItemWithError(message, shared->type) : NULL;
    PyObject *sent = NULL;
    int place;
    if (kind == NULL) {
        /* the Python says what is wrong with it, if anything */
    }
    else if (self->phase == shared->phase_passing) {
        if (is_same(kind, shared->body_kind) && (place = place_of(shared, message)) != UNUSUAL && place >= 0) {
            if (place == LAST) {
                put(&self->phase, shared->phase_over);
                put(&self->scope, Py_None); /* it holds the stream, and must not be held by it */
            }
            return forward(self, message);
        }
    }
    else if (self->touched != Py_False) {
        /* somebody wants to be told of its end */
    }
    else if (self->phase == shared->phase_new) {
        sent = is_same(kind, shared->start_kind) ? begin(self, message) : NULL;
    }
    else if (self->phase == shared->phase_held && self->start != NULL) {
        if (is_same(kind, shared->body_kind) && place_of(shared, message) == LAST) {
            return send_both(self, message);
        }
    }
    if (sent != NULL || PyErr_Occurred()) {
        return sent;
    }
    return PyObject_CallMethodOneArg((PyObject *)self, shared->send_in_full, message);
}

static PyMemberDef messages_members[] = {
    {"middleware", T_OBJECT_EX, offsetof(Messages, middleware), 0, NULL},
    {"scope", T_OBJECT_EX, offsetof(Messages, scope), 0, NULL},
    {"server_receive", T_OBJECT_EX, offsetof(Messages, server_receive), 0, NULL},
    {"server_send", T_OBJECT_EX, offsetof(Messages, server_send), 0, NULL},
    {"phase", T_OBJECT_EX, offsetof(Messages, phase), 0, NULL},
    {"touched", T_OBJECT_EX, offsetof(Messages, touched), 0, NULL},
    {"_start", T_OBJECT_EX, offsetof(Messages, start), 0, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Messages, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Messages, weakrefs), READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(send_doc, "send($self, message, /)\n--\n\n"
                       "ASGI's `send` for the application; the head waits until it is known what follows.");

static PyMethodDef messages_methods[] = {
    {"send", (PyCFunction)messages_send, METH_O, send_doc},
    {NULL},
};

static PyType_Slot messages_slots[] = {
    {Py_tp_traverse, messages_traverse},
    {Py_tp_clear, messages_clear},
    {Py_tp_dealloc, messages_dealloc},
    {Py_tp_members, messages_members},
    {Py_tp_methods, messages_methods},
    {Py_tp_getset, with_dict},
    {0, NULL},
};

static PyType_Spec messages_spec = {
    "streamkit.engines._passing.PassingMessages", sizeof(Messages), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, messages_slots,
};

/* begin_messages(class, middleware, scope, receive, send) */
static PyObject *begin_messages(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Shared *shared = PyModule_GetState(module);
    Messages *self = (Messages *)made(shared, args, shared->messages_type, count, 5);
    if (self == NULL) {
        return NULL;
    }
    self->shared = shared;
    put(&self->middleware, args[1]);
    put(&self->scope, args[2]);
    put(&self->server_receive, args[3]);
    put(&self->server_send, args[4]);
    put(&self->phase, shared->phase_new);
    put(&self->touched, Py_False);
    put(&self->start, Py_None);
    if (introduce(shared, args[2], (PyObject *)self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---------------------------------------------------------------- the module */

/* share(key, (NEW, HELD, PASSING, OVER), marks, plain_types, nothing, both): what the Python decides by. */
static PyObject *share(PyObject *module, PyObject *args) {
    Shared *shared = PyModule_GetState(module);
    PyObject *key, *new, *held, *passing, *over, *marks, *plain_types, *nothing, *both;
    if (!PyArg_ParseTuple(args, "U(OOOO)O!O!OO", &key, &new, &held, &passing, &over, &PyList_Type, &marks,
                          &PyFrozenSet_Type, &plain_types, &nothing, &both)) {
        return NULL;
    }
    put(&shared->key, key);
    put(&shared->phase_new, new);
    put(&shared->phase_held, held);
    put(&shared->phase_passing, passing);
    put(&shared->phase_over, over);
    put(&shared->marks, marks);
    put(&shared->plain_types, plain_types);
    put(&shared->nothing, nothing);
    put(&shared->both, both);
    Py_RETURN_NONE;
}

static int prepare(PyObject *module) {
    Shared *shared = PyModule_GetState(module);
    struct { PyObject **place; const char *text; } texts[] = {
        {&shared->outer, "outer"}, {&shared->start_in_full, "_start_in_full"},
        {&shared->send_in_full, "_send_in_full"},
        {&shared->plain_head, "plain_head"}, {&shared->type, "type"}, {&shared->headers, "headers"},
        {&shared->more_body, "more_body"},
        {&shared->start_kind, "http.response.start"}, {&shared->body_kind, "http.response.body"},
    };
    for (size_t at = 0; at < sizeof texts / sizeof *texts; at++) {
        *texts[at].place = PyUnicode_InternFromString(texts[at].text);
        if (*texts[at].place == NULL) {
            return -1;
        }
    }
    if (PyModule_AddIntConstant(module, "EDITION", EDITION) < 0) {
        return -1;
    }
    shared->answer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &answer_spec, NULL);
    if (shared->answer_type == NULL || PyModule_AddType(module, shared->answer_type) < 0) {
        return -1;
    }
    shared->messages_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &messages_spec, NULL);
    if (shared->messages_type == NULL || PyModule_AddType(module, shared->messages_type) < 0) {
        return -1;
    }
    return 0;
}

static int shared_traverse(PyObject *module, visitproc visit, void *arg) {
    Shared *shared = PyModule_GetState(module);
    EACH_SHARED(VISIT, shared)
    return 0;
}

static int shared_clear(PyObject *module) {
    Shared *shared = PyModule_GetState(module);
    EACH_SHARED(CLEAR, shared)
    return 0;
}

static void shared_free(void *module) {
    shared_clear(module);
}

static PyMethodDef functions[] = {
    {"share", share, METH_VARARGS, NULL},
    {"begin_answer", (PyCFunction)(void (*)(void))begin_answer, METH_FASTCALL, NULL},
    {"begin_messages", (PyCFunction)(void (*)(void))begin_messages, METH_FASTCALL, NULL},
    {NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, prepare},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_passing",
    .m_size = sizeof(Shared),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = shared_traverse,
    .m_clear = shared_clear,
    .m_free = shared_free,
};

PyMODINIT_FUNC PyInit__passing(void) {
    return PyModuleDef_Init(&definition);
}
