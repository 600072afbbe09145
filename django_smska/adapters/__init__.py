"""Modules that let other apps send through this one. Each is imported only when pointed at.

Most of these apps have no types, and none need be installed where types are checked: what the
modules import of them is ``Any`` there.
"""
