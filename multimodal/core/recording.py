"""Objects that record their constructor's arguments, so that they can be written as a configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from multimodal.core.arguments import check_arguments


class Recorded:
    """Base of classes whose objects keep the arguments of their constructor.

    The names and types of the arguments are checked, see ``check_arguments``.

    Attributes:
        init_args: name -> argument, defaults included.
        argument_examples: argument -> a valid value as it is written in Python, for errors.
        set_elsewhere: an argument that people try -> where this is set instead, a sentence for the error.

    Examples:
        >>> class Ramp(Recorded):
        ...     def __init__(self, start: float, end: float = 0.0) -> None:
        ...         self.slope = end - start
        >>> Ramp(1.0).init_args
        {'start': 1.0, 'end': 0.0}
    """

    init_args: dict[str, Any]
    argument_examples: ClassVar[Mapping[str, str]] = {}
    set_elsewhere: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = record_arguments(cls.__init__, check=_check)


def _check(cls: type[Recorded], init: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    check_arguments(cls.__name__, init, args, kwargs, cls.argument_examples, cls.set_elsewhere)


def record_arguments(
    init: Any, after: Callable[[Any], None] | None = None, check: Callable[..., None] | None = None
) -> Any:
    """Wrap a constructor so that it stores its arguments as ``init_args``.

    Args:
        init: an ``__init__``. If a subclass's and its base's are both wrapped, the arguments of the subclass's are stored.
        after: called with the object when the outermost constructor has finished.
        check: called with the class, ``init`` and the arguments before the outermost constructor.

    Returns:
        The wrapped ``__init__``.

    Raises:
        TypeError: ``init`` takes ``*args``, which have no names.
    """
    signature = inspect.signature(init)
    kinds = {p.kind: p.name for p in signature.parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise TypeError(f"{init.__qualname__}: arguments that are recorded need names; it cannot take *arguments.")
    var_keyword = kinds.get(inspect.Parameter.VAR_KEYWORD, "")  # the name of **settings

    @functools.wraps(init)
    def init_and_record(self: Any, *args: Any, **kwargs: Any) -> None:
        outermost = not hasattr(self, "init_args")
        if outermost:
            if check is not None:
                check(type(self), init, args, kwargs)
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
            arguments |= arguments.pop(var_keyword, {})
            object.__setattr__(self, "init_args", arguments)  # nn.Module's __setattr__ works only after its __init__
        init(self, *args, **kwargs)
        if outermost and after is not None:
            after(self)

    return init_and_record
