"""A project whose other apps send through ``django_smska.adapters``; see test_adapted_apps."""
