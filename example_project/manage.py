#!/usr/bin/env python
"""The command line of the example project."""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["demo"]:  # it has a database of its own, and never your gateway login
        os.environ["DJANGO_SETTINGS_MODULE"] = "shop.demo_settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here. In the repository run: pip install -e '.[example]'")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
