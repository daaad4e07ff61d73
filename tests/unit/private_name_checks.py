"""Compares the list in `tests/unit/private_names.py` with the libraries and with the code.

What the code uses is found in the text of each file (imports of internal modules and from them;
attributes that begin with an underscore and are no method of the same file; what is reached
through those), and in the classes that derive from a library's (what they override, and what they
use of their bases through ``self``).
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import streams
from tests.unit.private_names import LIBRARIES, PrivateName

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("models", "streams", "agents", "deploy")
_BASES = frozenset({"aiokafka", "faust", "mode"})
"""The libraries whose classes ours derive from, in `streams`."""
_OF_TASKS = frozenset(dir(asyncio.Task))
"""What is public of the tasks and futures that libraries keep in private attributes."""
_HOOK = "__post_init__"
"""The one name of this form that belongs to a library (mode) and not to Python."""


class Use(NamedTuple):
    """Something private that a file uses."""

    file: str
    line: int
    name: str
    """Complete (``aiokafka.producer.sender:log``), or of an attribute alone (``_sender``)."""
    owner: type | None = None
    """The class of ours that has the attribute from its bases."""

    def __str__(self) -> str:
        where = f" of {self.owner.__name__}" if self.owner is not None else ""
        return f"{self.file}:{self.line} uses {self.name}{where}, which is not listed"

    def is_listed_as(self, entry: PrivateName) -> bool:
        """Whether the entry is about it."""
        if self.file != entry.used_in:
            return False
        if self.owner is not None:
            names = {f"{_name_of(base)}.{self.name}" for base in self.owner.__mro__}
            return entry.name in names
        if "." in self.name:
            return entry.name == self.name or entry.name.startswith(
                tuple(self.name + separator for separator in ":.(")
            )
        return entry.path[-1:] == [self.name]


def missing(entry: PrivateName) -> str | None:
    """Return the line for a name that its library does not have (any more), or None."""
    if _exists(entry):
        return None
    library = entry.library.distribution
    return f"{library} {version(library)}: {entry.name} is gone; {entry.used_in} {entry.purpose}"


def _exists(entry: PrivateName) -> bool:
    try:
        found: object = import_module(entry.module)
    except ImportError:
        return False
    for name in entry.path:
        if not _has(found, name):
            return False
        found = getattr(found, name, None)  # an attribute of instances alone has no value here
    return not entry.parameters or (
        isinstance(found, type)
        and [name for name in dict.fromkeys(_parameters(found)) if name in entry.parameters]
        == entry.parameters
    )


def _has(owner: object, name: str) -> bool:
    if not isinstance(owner, type):
        return hasattr(owner, name)
    # Not `hasattr`: the interfaces that Faust's classes derive from would still have the name.
    return any(
        name in vars(base) or name in names_of(base)
        for base in owner.__mro__
        if base is owner or not _is_interface(base)
    )


def _parameters(owner: type) -> Iterator[str]:
    """Yield the parameters of a constructor; its ``**kwargs`` are those of the next base."""
    for base in owner.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            yield from parameters
            if all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
                return


def not_used(entry: PrivateName) -> str | None:
    """Return the line for an entry whose file does not use it, or None."""
    path = _ROOT / entry.used_in
    wanted = {entry.path[-1] if entry.path else entry.module}
    if entry.parameters:  # the file may call one of our classes that derive from it
        wanted |= {
            c.__name__
            for c in derived_classes()
            if entry.name.startswith(tuple(f"{_name_of(base)}(" for base in c.__mro__))
        }
    if path.exists() and wanted & _identifiers(path):
        return None
    return f"{entry.name} is listed and {entry.used_in} does not use it"


@cache
def _identifiers(path: Path) -> frozenset[str]:
    """Return all names in a file: of variables, attributes, imports, functions; and its strings."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ImportFrom(module=str(module), names=aliases):
                found |= {module, *(alias.name for alias in aliases)}
    return frozenset(found)


def all_uses() -> Iterator[Use]:
    """Yield everything private that the code uses."""
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            file = str(path.relative_to(_ROOT))
            for line, name in uses_in_text(path.read_text()):
                yield Use(file, line, name)
    for owner in derived_classes():
        yield from uses_by_inheritance(owner)


def uses_in_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines and names of what this code uses."""
    tree = ast.parse(text)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for local, name in _imports(node):
                if _is_internal(name):
                    imported[local] = name
                    yield node.lineno, name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = imported.get(node.value.id, "")
            if name:
                yield node.lineno, f"{name}{'.' if ':' in name else ':'}{node.attr}"
    own = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for part in _parts(tree):
        yield from _private_attributes(part, own)


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield what is imported: its name here, and where it is from."""
    for alias in node.names:
        name = alias.name
        if isinstance(node, ast.ImportFrom):
            as_module = f"{node.module}.{alias.name}"
            name = as_module if _is_module(as_module) else f"{node.module}:{alias.name}"
        yield alias.asname or alias.name, name


@cache
def _is_module(name: str) -> bool:
    """Whether a library has this module."""
    if name.partition(".")[0] not in LIBRARIES:
        return False
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def _is_internal(name: str) -> bool:
    """Whether this import is of what its library keeps to itself."""
    module, _, inside = name.partition(":")
    package = module.partition(".")[0]
    if package in LIBRARIES and module not in LIBRARIES[package].public:
        return True
    return package not in _PACKAGES and (inside.startswith("_") or "._" in module)


def _parts(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module and its classes; a function is one, with all inside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _parts(node)
        else:
            yield node


def _private_attributes(part: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield private attributes of other objects than ``self``, and what is reached through them."""

    def is_private(node: ast.Attribute) -> bool:
        holder = ast.unparse(node.value)
        return (
            node.attr.startswith("_")
            and not node.attr.endswith("__")
            and node.attr not in own
            and holder not in ("self", "cls", "super()")
            and (holder, node.attr) != ("os", "_exit")  # which is public
        )

    def is_reached(node: ast.expr) -> bool:
        """Whether a private attribute, or a variable that holds one, is on the way to this."""
        match node:
            case ast.Name(id=name):
                return name in held
            case ast.Attribute(value=value):
                return is_private(node) or is_reached(value)
            case ast.Call(func=value) | ast.Subscript(value=value):
                return is_reached(value)
        return False

    held: set[str] = set()
    assigned = list(_assignments(part))
    while more := {name for name, value in assigned if is_reached(value)} - held:
        held |= more
    for node in ast.walk(part):
        if isinstance(node, ast.Attribute) and (
            is_private(node)
            or (
                is_reached(node.value)
                and node.attr not in _OF_TASKS
                and not node.attr.endswith("__")  # of Python's own data model
            )
        ):
            yield node.lineno, node.attr


def _assignments(part: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the variables that are assigned, and their values."""
    for node in ast.walk(part):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                for variable, value in pairs:
                    if isinstance(variable, ast.Name):
                        yield variable.id, value


@cache
def derived_classes() -> tuple[type, ...]:
    """Return the classes of `streams` that derive from one of a library's."""
    return tuple(
        value
        for module in pkgutil.walk_packages(streams.__path__, "streams.")
        for value in vars(import_module(module.name)).values()
        if isinstance(value, type) and value.__module__ == module.name and _bases(value)
    )


def uses_by_inheritance(owner: type) -> Iterator[Use]:
    """Yield what a class overrides of its bases, and what it uses of them through ``self``."""
    file, bases = owner.__module__.replace(".", "/") + ".py", _bases(owner)
    ours = {name for base in owner.__mro__ if base not in bases for name in vars(base)}
    ours |= {name for base in owner.__mro__ if base not in bases for _, name in _defined_by(base)}
    for line, name in _defined_by(owner):
        if any(name in names_of(base) for base in bases):
            yield Use(file, line, name, owner)
    definition = _code_of(owner)
    assert definition is not None
    for node in ast.walk(definition):
        if isinstance(node, ast.Attribute):
            holder = ast.unparse(node.value)
            inherited = holder == "super()" or (holder == "self" and node.attr not in ours)
            if inherited and _is_private_to(bases, node.attr):
                yield Use(file, node.lineno, node.attr, owner)


def _bases(owner: type) -> list[type]:
    return [base for base in owner.__mro__ if base.__module__.partition(".")[0] in _BASES]


def _is_private_to(bases: list[type], name: str) -> bool:
    """Whether one of the bases has this name, and it is not for users."""
    return any(name in names_of(base) for base in bases) and (
        name.startswith("_") or not any(_is_public(base) and _has(base, name) for base in bases)
    )


def _is_interface(owner: type) -> bool:
    return ".types." in owner.__module__


def _is_public(owner: type) -> bool:
    modules = LIBRARIES[owner.__module__.partition(".")[0]].public
    return not _is_interface(owner) and any(
        getattr(import_module(m), owner.__name__, None) is owner for m in modules
    )


def _defined_by(owner: type) -> Iterator[tuple[int, str]]:
    """Yield the lines and names of what a class gives a value, in its body or through ``self``."""
    definition = _code_of(owner)
    if definition is None:
        return
    for node in definition.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield node.lineno, name
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                yield node.lineno, name
    for part in ast.walk(definition):
        match part:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield part.lineno, name


@cache
def names_of(owner: type) -> frozenset[str]:
    """Return the names that a class has itself, not from its bases and not from Python."""
    definition = _code_of(owner)
    annotated = {
        node.target.id
        for node in (definition.body if definition is not None else ())
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    names = {*vars(owner), *(name for _, name in _defined_by(owner)), *annotated}
    return frozenset(name for name in names if name == _HOOK or not name.endswith("__"))


def _code_of(owner: type) -> ast.ClassDef | None:
    """Return the code of a class, or None if there is no Python code of it."""
    return _classes_in(owner.__module__).get(owner.__qualname__)


@cache
def _classes_in(module: str) -> dict[str, ast.ClassDef]:
    """Return the code of the classes of a module, by their qualified names."""

    def classes(body: list[ast.stmt], outer: str) -> Iterator[tuple[str, ast.ClassDef]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield outer + node.name, node
                yield from classes(node.body, f"{outer}{node.name}.")

    try:
        tree = ast.parse(inspect.getsource(import_module(module)))
    except (OSError, TypeError):
        return {}
    return dict(classes(tree.body, ""))


def _name_of(owner: type) -> str:
    return f"{owner.__module__}:{owner.__qualname__}"
