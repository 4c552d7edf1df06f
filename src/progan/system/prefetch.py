"""Making the next thing while the present one is used."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Ahead(Generic[K, T]):
    """Calls a pure function one call ahead, in a thread that ends with the call.

    Args:
        function: Of a key; it must give the same whenever it is called.
    """

    def __init__(self, function: Callable[[K], T]) -> None:
        self._function = function
        self._begun: tuple[K, Future[T]] | None = None

    def get(self, key: K, following: K) -> T:
        """Return the function of `key`, and begin that of `following`.

        Raises:
            Exception: what the function raises for `key`.
        """
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == key:
            result = begun[1].result()
        else:
            if begun is not None:
                begun[1].exception()  # waited for, and forgotten
            result = self._function(key)
        future: Future[T] = Future()
        # A daemon: a disk that does not answer must not keep the process from ending.
        Thread(target=self._call, args=(following, future), name="ahead", daemon=True).start()
        self._begun = following, future
        return result

    def forget(self) -> None:
        """Let go of what has been begun; afterwards the function is not at work."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].exception()

    def _call(self, key: K, future: Future[T]) -> None:
        try:
            future.set_result(self._function(key))
        except BaseException as error:  # for whoever asks for the result
            future.set_exception(error)
