"""Registries whose names are file names: a new encoder or agent is one new file, found without being listed anywhere.

Such a file defines `kind` (one line for listings), `Config` (a frozen dataclass whose fields all have defaults) and
`build` (`Config` and specs in, the object out).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ...envs.errors import UnknownNameError, UserError

NOT_ENTRIES = ("base", "parts")  # modules of a registry's package that are no entries, beside private ones


class Entry(NamedTuple):
    """What a module of a registry offers."""

    name: str  # as it was asked for
    kind: str  # one line for listings
    Config: type[Any]  # frozen dataclass
    build: Callable[..., Any]
    user: bool  # from a file or module of the user's, so a saved config may not name it


class Registry:
    """The modules of one package, and the user's own that define the same three names."""

    def __init__(self, package: str, what: str):
        """`package` is imported by name ("saccade.encoders"); `what` names an entry in messages ("encoder")."""
        self.package, self.what = package, what

    def names(self) -> list[str]:
        """Built-in names, sorted. Nothing is imported but the package itself."""
        path = importlib.import_module(self.package).__path__
        found = (module.name for module in pkgutil.iter_modules(path))
        return sorted(name for name in found if name not in NOT_ENTRIES and not name.startswith("_"))

    def find(self, name: str, user: bool = True) -> Entry:
        """The entry called `name`: a built-in name, a path ending in `.py`, or a dotted module name, in that order.

        `user=False` resolves built-in names only. Use it for a config that was loaded from a file: naming the user's
        own module there would run code that the person at the command line has not asked for.

        Raises:
            UnknownNameError: nothing bears that name.
            UserError: the user's module is missing, cannot be imported, or does not define what it must.
        """
        known = self.names()
        if name in known:
            return self._entry(name, importlib.import_module(f"{self.package}.{name}"), user=False)
        is_file, is_module = name.endswith(".py"), "." in name.strip(".")
        if not (is_file or is_module):
            raise UnknownNameError(self.what, name, known)
        if not user:
            raise UserError(
                f"{self.what} {name!r} comes from outside saccade, and a saved config may name built-in ones only; "
                f"name it again on the command line"
            )
        return self._entry(name, self._from_file(name) if is_file else self._from_module(name), user=True)

    def _entry(self, name: str, module: ModuleType, user: bool) -> Entry:
        missing = [attribute for attribute in ("kind", "Config", "build") if not hasattr(module, attribute)]
        if missing:
            raise UserError(f"{self.what} {name!r} does not define {' and '.join(missing)}")
        config = module.Config
        if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
            raise UserError(f"{self.what} {name!r}: Config must be a dataclass")
        if not callable(module.build):
            raise UserError(f"{self.what} {name!r}: build must be a function")
        return Entry(name, str(module.kind), config, module.build, user)

    def _from_file(self, name: str) -> ModuleType:
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"{self.what} {name!r}: there is no such file")
        # Dataclasses and pickled classes look their module up in sys.modules; the digest keeps equal stems apart.
        module_name = f"saccade_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        if module_name in sys.modules:
            return sys.modules[module_name]
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None  # both hold for any path that ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise self._broken(name, error) from error
        return module

    def _from_module(self, name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(
                    f"unknown {self.what} {name!r}; no module of that name can be imported from here "
                    f"(built-in: {', '.join(self.names())})"
                ) from error
            raise self._broken(name, error) from error
        except Exception as error:
            raise self._broken(name, error) from error

    def _broken(self, name: str, error: Exception) -> UserError:
        """The error of importing a user's module, in one line that says where it happened."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        file, line = last.filename, last.lineno
        if isinstance(error, SyntaxError):
            file, line = error.filename or file, error.lineno
        reason = " ".join(str(error).split())
        return UserError(f"{self.what} {name!r} cannot be imported: {type(error).__name__}: {reason} ({file}:{line})")


def make_config(entry: Entry, what: str, config: object | None) -> Any:
    """`config`, or the entry's defaults.

    Raises:
        UserError: `config` is another entry's, or there are no defaults.
    """
    if config is None:
        try:
            return entry.Config()
        except TypeError as error:
            raise UserError(f"{what} {entry.name!r}: every field of Config needs a default ({error})") from error
    if not isinstance(config, entry.Config):
        other = f"{type(config).__module__}.{type(config).__qualname__}"
        raise UserError(f"{what} {entry.name!r} wants its own Config, not {other}")
    return config
