"""The one door to PKCS#11: a token reached through one thread, by a deadline, and found again after it was lost.

All calls to one module are made in one thread, because C_Initialize and C_Finalize must not run beside other calls. A caller
waits for its deadline and is then refused; a call that a module never ends keeps that thread, so that later calls are refused
at once until it does end. Nothing here is on the way of a row: keys are unwrapped when a store opens or a tenant is unsealed.

A lost session is met in three steps: use the one there is, log in anew, load the module anew. Only calls that may be made
twice are passed in. A PIN that was refused is not tried again before its file changes: tokens lock themselves.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from keystrand.core.errors import ConfigError, Unavailable
from keystrand.core.secret import Secret

if TYPE_CHECKING:
    from pkcs11.types import Session

T = TypeVar("T")

DEADLINE_S: Final = 2.0
RETRY_AFTER_S: Final = 5.0
PIN_BYTES_MAX: Final = 256

# what a token answers when session, login, token or module are gone; any of them is worth a new session
_LOST: Final = (
    "DeviceError", "DeviceRemoved", "FunctionCancelled", "FunctionFailed", "GeneralError", "KeyHandleInvalid", "NoSuchKey",
    "NoSuchToken", "ObjectHandleInvalid", "OperationActive", "OperationNotInitialized", "SessionClosed", "SessionCount",
    "SessionHandleInvalid", "SlotIDInvalid", "TokenNotPresent", "TokenNotRecognised", "UserNotLoggedIn",
)  # fmt: skip
_PIN_REFUSED: Final = (
    "PinExpired", "PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "UserPinNotInitialized",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """Where a token is. module: the vendor's PKCS#11 library. pin_file: the user PIN, mode 600."""

    module: Path
    token_label: str
    pin_file: Path
    deadline_s: float = DEADLINE_S


@dataclass(slots=True)
class _Call:
    """A call on its way. ends_s: on the monotonic clock, when its caller gives up."""

    future: Future[Any]
    work: Callable[[], Any]
    ends_s: float


class ModuleThread:
    """Makes calls one after another, in one thread that never keeps the program from ending."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._current: _Call | None = None
        threading.Thread(target=self._serve, name=f"hsm {name}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            if not call.future.set_running_or_notify_cancel():
                continue
            self._current = call
            try:
                call.future.set_result(call.work())
            except BaseException as error:
                call.future.set_exception(error)
            self._current = None
            del call  # a result that nobody waits for any more may be a secret

    def run(self, work: Callable[[], T], deadline_s: float) -> T:
        """What `work` returns or raises. Raises Unavailable once `deadline_s` have passed, waiting for others included."""
        current, now_s = self._current, time.monotonic()
        if current is not None and now_s > current.ends_s:
            raise _silent(f"has been silent for {now_s - current.ends_s:.1f} s beyond its deadline")
        future: Future[T] = Future()
        self._calls.put(_Call(future, work, now_s + deadline_s))
        try:
            return future.result(deadline_s)
        except TimeoutError:
            future.cancel()
            raise _silent(f"did not answer within {deadline_s:g} s") from None


def _silent(how: str) -> Unavailable:
    return Unavailable(
        f"the HSM {how}",
        hint="check the HSM and its network; nothing was released meanwhile",
        retry_after_s=RETRY_AFTER_S,
    )


_threads: Final[dict[Path, ModuleThread]] = {}
_threads_lock: Final = threading.Lock()


def thread_of(module: Path) -> ModuleThread:
    """The one thread of `module` in this process, as PKCS#11 counts applications and logins by process."""
    with _threads_lock:
        if module not in _threads:
            _threads[module] = ModuleThread(module.name)
        return _threads[module]


class Hsm:
    """A token. Cheap to make; the token is opened with the first call."""

    def __init__(self, place: TokenPlace) -> None:
        self.place = replace(place, module=place.module.resolve())
        self._thread = thread_of(self.place.module)
        self._session: Session | None = None
        self._refused_pin: Secret | None = None

    def call(self, work: Callable[[Session], T]) -> T:
        """What `work` returns, given a session that is logged in. It may run up to three times.

        Raises Unavailable by the deadline; ConfigError where module, PIN, token or key are not what the file says, or the
        token lacks a mechanism; what `work` raises itself.
        """
        return self._thread.run(lambda: self._attempts(work), self.place.deadline_s)

    def _attempts(self, work: Callable[[Session], T]) -> T:
        p11 = load_pkcs11()
        lost: Exception | None = None
        for prepare in (self._keep, self._open, self._reload):
            try:
                return work(prepare())
            except p11.PKCS11Error as error:
                self._session = None
                lost = error
                if not _is_lost(error):
                    break
        assert lost is not None
        raise self._refusal(lost)

    def _keep(self) -> Session:
        if self._session is None:
            return self._open()
        # fails cleanly on a dead session, where a search for objects would leave an ignored exception on stderr
        self._session.generate_random(8)
        return self._session

    def _open(self) -> Session:
        p11 = load_pkcs11()
        token = self._library().get_token(token_label=self.place.token_label)
        pin = self._read_pin()
        try:
            self._session = token.open(rw=True, user_pin=pin.reveal().decode())
        except p11.UserAlreadyLoggedIn:  # by another session of this process
            self._session = token.open(rw=True)
        except p11.PKCS11Error as error:
            if type(error).__name__ in _PIN_REFUSED:
                self._refused_pin = pin
            raise
        return self._session

    def _reload(self) -> Session:
        self._library()
        reload_module(self.place.module)
        return self._open()

    def _library(self) -> Any:
        try:
            library = load_pkcs11().lib(str(self.place.module))
        except RuntimeError as error:  # PKCS11Error is one; dlopen's words are for people
            raise ConfigError(f"cannot load the PKCS#11 module: {error}", path=str(self.place.module)) from None
        # its destructor calls C_Finalize with the interpreter locked, where a silent HSM would hold up the program's end
        if self.place.module not in _kept:
            _kept.add(self.place.module)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
        return library

    def _read_pin(self) -> Secret:
        pin = read_pin(self.place.pin_file)
        if self._refused_pin is not None and self._refused_pin.matches(pin):
            raise ConfigError(
                "the token refused this PIN; it is not tried again",
                path=str(self.place.pin_file),
                hint="write the right PIN into the file; is the token locked?",
            )
        return pin

    def _refusal(self, error: Exception) -> Exception:
        name = type(error).__name__
        label, module = self.place.token_label, self.place.module
        if name in _PIN_REFUSED:
            hint = "write the right PIN into the file; a locked token needs its security officer"
            return ConfigError(f"the token refused the PIN ({name})", path=str(self.place.pin_file), hint=hint)
        if name == "NoSuchKey":
            return ConfigError(f"token {label} has no such key", hint="correct key_label, or make the key first")
        if name in ("MultipleObjectsReturned", "MultipleTokensReturned"):
            return ConfigError(f"token {label}: several objects of one label", hint="remove or rename all but one")
        if name in ("MechanismInvalid", "MechanismParamInvalid", "FunctionNotSupported"):
            return ConfigError(f"token {label} cannot do AES-GCM as it is needed ({name})", path=str(module))
        hint = f"is token {label} there? pkcs11-tool --module {module} --list-token-slots"
        return Unavailable(f"the HSM refuses ({name})", hint=hint, retry_after_s=RETRY_AFTER_S)


_kept: Final[set[Path]] = set()


def _is_lost(error: Exception) -> bool:
    """Codes without a class of their own, CKR_CRYPTOKI_NOT_INITIALIZED among them, come as the bare base class."""
    name = type(error).__name__
    return name in _LOST or name == "PKCS11Error"


def load_pkcs11() -> Any:
    """The library behind the extra `hsm`, loaded on first use."""
    try:
        import pkcs11
    except ImportError:
        hint = "pip install 'keystrand[hsm]'"
        raise ConfigError("python-pkcs11 is not installed, and an HSM is configured", hint=hint) from None
    return pkcs11


def read_pin(path: Path) -> Secret:
    """The PIN in `path`. Raises ConfigError where it is missing, empty, too long or readable by others."""
    try:
        mode = path.stat().st_mode
        pin = path.read_bytes().rstrip(b"\r\n")
        pin.decode()
    except OSError as error:
        raise ConfigError(f"cannot read the PIN: {error.strerror}", path=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("the PIN is not UTF-8", path=str(path)) from None
    if mode & 0o077:
        raise ConfigError("others can read the PIN", path=str(path), hint=f"chmod 600 {path}")
    if not 0 < len(pin) <= PIN_BYTES_MAX:
        raise ConfigError(f"the PIN has {len(pin)} bytes", path=str(path), hint="write the user PIN on one line")
    return Secret(pin)


_Initialise = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


class _FunctionList(ctypes.Structure):
    """The head of CK_FUNCTION_LIST (PKCS#11 v2.40, 3.6)."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _Initialise),
        ("C_Finalize", _Initialise),
    )


def reload_module(module: Path) -> None:
    """C_Finalize, then C_Initialize. By way of ctypes, which lets other threads run: python-pkcs11's own does not."""
    functions = ctypes.POINTER(_FunctionList)()
    ctypes.CDLL(str(module)).C_GetFunctionList(ctypes.byref(functions))
    functions.contents.C_Finalize(None)
    functions.contents.C_Initialize(None)
