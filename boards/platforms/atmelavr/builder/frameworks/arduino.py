"""Arduino's core for AVR as Debian packages it, compiled as Arduino does: for size, optimised when it is linked."""

import sys
from pathlib import Path

from SCons.Script import DefaultEnvironment

HOME = Path("/usr/share/arduino/hardware/arduino/avr")

env = DefaultEnvironment()
board = env.BoardConfig()
core, variant = HOME / "cores" / board.get("build.core"), HOME / "variants" / board.get("build.variant")
if not core.is_dir():
    sys.stderr.write(f"Error: {core} is missing; install it with `apt-get install arduino-core-avr`\n")
    env.Exit(1)

machine = ["-mmcu=$BOARD_MCU"]
env.Append(
    ASFLAGS=machine,
    ASPPFLAGS=["-x", "assembler-with-cpp"],
    CFLAGS=["-std=gnu11", "-fno-fat-lto-objects"],
    CXXFLAGS=["-fno-exceptions", "-fno-threadsafe-statics", "-fpermissive", "-std=gnu++11"],
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-flto", *machine],
    CPPDEFINES=[
        ("F_CPU", "$BOARD_F_CPU"),
        "ARDUINO_ARCH_AVR",
        ("ARDUINO", 10808),
        ("DECIMAL_DIG", "__DECIMAL_DIG__"),  # the core asks for C's macro, which C++ does not have
    ],
    CPPPATH=[str(core), str(variant)],
    LINKFLAGS=["-Os", *machine, "-Wl,--gc-sections", "-flto", "-fuse-linker-plugin"],
    LIBS=["m"],
)
env.ProcessFlags(board.get("build.extra_flags", ""))
env.Prepend(LIBS=[env.BuildLibrary(str(Path("$BUILD_DIR") / "FrameworkArduino"), str(core))])
