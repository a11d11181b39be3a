"""What /proc/cpuinfo says on known machines, written from the cores' manuals and the kernel's names."""

from __future__ import annotations


def arm(count: int, part: int, features: str, *, maker: int = 0x41, tail: str = "") -> str:
    """A 64-bit ARM kernel's /proc/cpuinfo with equal cores."""
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: {maker:#x}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part:#x}\nCPU revision\t: 3\n"
        for number in range(count)
    ]
    return "\n".join(blocks) + tail


def x86(count: int, name: str, flags: str) -> str:
    """A 64-bit x86 kernel's /proc/cpuinfo."""
    return "\n".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: {name}\n"
        f"cache size\t: 6144 KB\nflags\t\t: {flags}\nbugs\t\t: spectre_v1 spectre_v2\n"
        "address sizes\t: 39 bits physical, 48 bits virtual\npower management:\n"
        for number in range(count)
    )


_A72 = "fp asimd evtstrm crc32 cpuid"
_A53 = "fp asimd evtstrm crc32 cpuid"
_A76 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
_N2 = f"{_A76} sha3 sm3 sm4 sve asimdfhm dit uscat ilrcpc flagm ssbs sb dcpodp sve2 i8mm bf16"
_AVX2 = "fpu vme sse sse2 ssse3 fma sse4_1 sse4_2 popcnt avx f16c avx2 bmi1 bmi2"

PI_3 = arm(
    4, 0xD03, _A53, tail="\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 3 Model B Plus Rev 1.3\n"
)
PI_4 = arm(
    4,
    0xD08,
    _A72,
    tail="\nHardware\t: BCM2835\nRevision\t: c03115\nSerial\t\t: 10000000abcdef01\n"
    "Model\t\t: Raspberry Pi 4 Model B Rev 1.5\n",
)
PI_5 = arm(4, 0xD0B, _A76, tail="\nRevision\t: d04171\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n")
#: A 32-bit kernel on the same Cortex-A72.
PI_4_32 = "".join(
    f"processor\t: {number}\nmodel name\t: ARMv7 Processor rev 3 (v7l)\nBogoMIPS\t: 108.00\n"
    "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm "
    "crc32\nCPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n"
    "CPU revision\t: 3\n\n"
    for number in range(4)
)
NEOVERSE_N2 = arm(2, 0xD49, _N2)
#: Small and large cores; only the large ones have dot products.
MIXED = arm(4, 0xD03, _A53) + "\n" + arm(2, 0xD0B, _A76).replace(": 0\n", ": 4\n", 1)
QUALCOMM = arm(8, 0x804, _A76, maker=0x51)
KABY_LAKE = x86(8, "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", _AVX2)
CASCADE_LAKE = x86(
    2,
    "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz",
    f"{_AVX2} avx512f avx512dq avx512bw avx512vl avx512_vnni",
)
ALDER_LAKE = x86(12, "12th Gen Intel(R) Core(TM) i7-12700", f"{_AVX2} avx_vnni")
ATOM = x86(4, "Intel(R) Atom(TM) CPU D525 @ 1.80GHz", "fpu vme sse sse2 ssse3")
