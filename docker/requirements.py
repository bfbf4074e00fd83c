"""Prints what a pyproject.toml depends on, so that packages lie in a layer that outlives a change of the source.

python requirements.py pyproject.toml [--extra NAME] [--only PACKAGE]
"""

import argparse
import re
import tomllib

arguments = argparse.ArgumentParser()
arguments.add_argument("pyproject", type=argparse.FileType("rb"))
arguments.add_argument("--extra", action="append", default=[])
arguments.add_argument("--only")
chosen = arguments.parse_args()

project = tomllib.load(chosen.pyproject)["project"]
wanted = [*project["dependencies"], *(line for name in chosen.extra for line in project["optional-dependencies"][name])]
print(*(line for line in wanted if chosen.only in (None, re.split(r"[^\w.-]", line)[0])), sep="\n")
