"""streamkit as each framework's users expect it.

Rule: a room here converts, and knows no feature; it is the only one that imports its framework.
"""
