"""Other platforms, as far as this one can play them: what they lack is hidden before a program starts.

"win32" has none of the calls that only POSIX has, its modules cannot be imported, files that are open can
neither be renamed nor deleted nor replaced, and a file that is not opened as bytes is an error. "darwin"
has no /proc and none of Linux's own calls. Where edge-mrl asks for the platform's name, it gets the other
one. Nothing else of these platforms is here: neither their file systems nor their libraries.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.bundles import ROOT

__all__ = ["PLATFORMS", "on_platform"]

PLATFORMS = ("win32", "darwin")

_SITE = """
import builtins, importlib.abc, importlib.machinery, io, os, sys, types
PLATFORM, HIDDEN = {platform!r}, {hidden!r}
WINDOWS = PLATFORM == "win32"
ABSENT = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "readline") if WINDOWS else ()


class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):  # the platform's name is a constant of the code
        text = self.get_data(self.path).replace(b"sys.platform", repr(PLATFORM).encode())
        text = text.replace(b"os.name", b"'nt'" if WINDOWS else b"'posix'")
        return compile(text, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ("edge_mrl", "edge_mrl_kernels"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(name, spec.loader.path)
        return spec


class Veiled(types.ModuleType):
    def __init__(self, module, names):
        super().__init__(module.__name__)
        self.__dict__["_module"], self.__dict__["_names"] = module, frozenset(names)

    def __getattr__(self, name):
        if name in self._names:
            raise AttributeError(f"{{self.__name__}} has no {{name}} on {{PLATFORM}}")
        return getattr(self._module, name)


def importing(name, globals=None, locals=None, fromlist=(), level=0):
    asker = (globals or {{}}).get("__name__", "")
    found = IMPORT(name, globals, locals, fromlist, level)
    if asker.partition(".")[0] == "edge_mrl" and level == 0:
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        if name in HIDDEN:
            return Veiled(found, HIDDEN[name])
    return found


IMPORT, builtins.__import__ = builtins.__import__, importing
sys.meta_path.insert(0, Finder())


def is_ours(depth):
    return "/edge_mrl/" in sys._getframe(depth).f_code.co_filename


def hiding(call):
    def other(path, *rest, **options):
        text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if text.startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", text)
        return call(path, *rest, **options)
    return other


OPEN, READLINK, LISTDIR = os.open, os.readlink, os.listdir
io.open = builtins.open = hiding(io.open)
os.stat, os.listdir, os.readlink = hiding(os.stat), hiding(os.listdir), hiding(os.readlink)

if WINDOWS:
    os.O_BINARY = 0x8000  # which this kernel ignores

    def opened(path, flags, *rest, **options):
        if is_ours(2) and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        if is_ours(2) and not flags & os.O_BINARY and os.fspath(path) != os.devnull:
            raise AssertionError(f"{{path}} is opened as text: line ends would be changed")
        return OPEN(path, flags, *rest, **options)

    def is_held(path):
        mine = os.path.realpath(path)
        if not os.path.isfile(mine):
            return False
        for one in LISTDIR("/proc/self/fd"):
            try:
                if READLINK("/proc/self/fd/" + one) == mine:
                    return True
            except OSError:
                pass
        return False

    def refusing(call, count):
        def other(*places, **options):
            for place in places[:count]:
                if is_held(place):
                    raise PermissionError(13, "another process uses the file", str(place))
            if call.__name__ == "rename" and os.path.lexists(places[1]):
                raise FileExistsError(17, "there is a file of that name", str(places[1]))
            return call(*places, **options)
        return other

    os.open = opened
    os.replace, os.rename = refusing(os.replace, 2), refusing(os.rename, 2)
    os.unlink, os.remove = refusing(os.unlink, 1), refusing(os.remove, 1)
"""
#: Names that edge-mrl does not find on these platforms, by module.
_LINUX = {
    "os": (
        *("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate"),
        *("memfd_create", "copy_file_range", "O_TMPFILE", "O_PATH", "O_DIRECT", "fdatasync"),
        *("getrandom", "pidfd_open", "eventfd", "getxattr", "setxattr"),
    ),
}
_POSIX = {
    "os": (
        *_LINUX["os"],
        *(
            "pread",
            "preadv",
            "pwrite",
            "pwritev",
            "fork",
            "forkpty",
            "geteuid",
            "getegid",
            "getuid",
        ),
        *(
            "getgid",
            "fchmod",
            "fchown",
            "chown",
            "lchown",
            "statvfs",
            "fstatvfs",
            "uname",
            "mkfifo",
        ),
        *("mknod", "nice", "getpgid", "setsid", "killpg", "sync", "getloadavg", "sysconf"),
        *("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "O_SYNC", "O_DSYNC", "wait3"),
        *("wait4", "WNOHANG", "register_at_fork", "lockf", "posix_spawn", "getgroups", "setuid"),
        *("chroot", "getpriority", "setpriority", "sched_yield", "WIFEXITED", "major", "minor"),
    ),
    "signal": (
        *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT"),
        *("pthread_sigmask", "setitimer", "alarm", "sigwait", "pause", "siginterrupt"),
    ),
    "mmap": (
        *("MAP_PRIVATE", "MAP_SHARED", "MAP_ANONYMOUS", "MAP_ANON", "PROT_READ", "PROT_WRITE"),
        *("PROT_EXEC", "MADV_DONTNEED", "MADV_WILLNEED"),
    ),
    "select": ("poll", "epoll"),
    "socket": ("AF_UNIX", "SO_REUSEPORT"),
    "time": ("tzset", "clock_settime", "CLOCK_BOOTTIME", "clock_gettime", "CLOCK_MONOTONIC"),
}


def on_platform(platform: str, folder: Path) -> dict[str, str]:
    """Variables for a process, and those that it starts, that seem to run on another platform.

    Args:
        platform: One of PLATFORMS.
        folder: Where to put what does it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hidden = _POSIX if platform == "win32" else _LINUX
    text = _SITE.format(platform=platform, hidden=hidden)
    (folder / "sitecustomize.py").write_text(text, "utf-8")
    paths = [str(folder), str(ROOT)]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
