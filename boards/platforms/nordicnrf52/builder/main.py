"""Builds an image for an nRF52 without a framework and uploads it; SCons runs it for our `nordicnrf52` platform.

The flags are those that the official platform gives a program without a framework.
"""

import shutil
import sys
from pathlib import Path
from typing import NoReturn

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Builder, Default, DefaultEnvironment

PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"
JLINK = "SEGGER's J-Link software (JLinkExe)"

env = DefaultEnvironment()
board = env.BoardConfig()


def fail(sentence: str) -> NoReturn:
    """End the build."""
    sys.stderr.write(f"Error: {sentence}\n")
    env.Exit(1)
    raise SystemExit(1)


def openocd(interface: str) -> str:
    """Return the command that writes and starts an image through a probe."""
    flash = "program {$SOURCE} verify reset exit"
    return f'openocd -f interface/{interface}.cfg -c "transport select swd" -f target/nrf52.cfg -c "{flash}"'


def jlink() -> str:
    """Return SEGGER's own command if it is there, and OpenOCD's for the same probe if not."""
    if shutil.which("JLinkExe") is None:
        return openocd("jlink")
    script = Path(env.subst("$BUILD_DIR")) / "upload.jlink"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'h\nloadfile "{env.subst("$BUILD_DIR/${PROGNAME}.hex")}"\nr\ng\nq\n', encoding="utf-8")
    options = f"-device {board.get('debug.jlink_device')} -if swd -speed 4000 -autoconnect 1 -NoGui 1"
    return f'JLinkExe {options} -CommanderScript "{script}"'


def upload_command() -> str:
    """Return what uploads by the protocol that the board or the project names."""
    protocol = env.subst("$UPLOAD_PROTOCOL")
    commands = {
        "jlink": (jlink, ("JLinkExe", "openocd"), f"`apt-get install openocd`, or {JLINK}"),
        "cmsis-dap": (lambda: openocd("cmsis-dap"), ("openocd",), "`apt-get install openocd`"),
        "nrfjprog": (
            lambda: "nrfjprog --program $SOURCE --sectorerase --verify --reset -f nrf52",
            ("nrfjprog",),
            "Nordic's nRF Command Line Tools",
        ),
    }
    if protocol not in commands:
        fail(f"upload_protocol is {protocol!r}; without PlatformIO's registry expected one of {', '.join(commands)}")
    command, tools, remedy = commands[protocol]
    if not any(map(shutil.which, tools)):
        fail(f"{' or '.join(tools)} is missing, which uploads by {protocol}; install it: {remedy}")
    return command()


if env.get("PIOFRAMEWORK"):
    fail(
        f"{env['PIOENV']} needs the framework {' '.join(env['PIOFRAMEWORK'])}, which only PlatformIO's registry has; "
        "connect, delete platformio.local.ini and run again, or build nrf52_dk_bare or nrf52840_dk_bare instead"
    )
if shutil.which("arm-none-eabi-gcc") is None:
    fail(f"arm-none-eabi-gcc is missing; install it with `apt-get install {PACKAGES}`")

machine = ["-mthumb", f"-mcpu={board.get('build.cpu')}"]
env.Replace(
    AR="arm-none-eabi-ar",
    AS="arm-none-eabi-as",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    OBJCOPY="arm-none-eabi-objcopy",
    RANLIB="arm-none-eabi-ranlib",
    SIZETOOL="arm-none-eabi-size",
    ARFLAGS=["rc"],
    PROGSUFFIX=".elf",
    SIZEPROGREGEXP=r"^(?:\.text|\.data|\.rodata|\.text.align|\.ARM.exidx)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
)
env.Append(
    ASFLAGS=machine,
    ASPPFLAGS=["-x", "assembler-with-cpp"],
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-Wall", "-nostdlib", *machine],
    CXXFLAGS=["-fno-rtti", "-fno-exceptions"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=["-Os", "-Wl,--gc-sections,--relax", "--specs=nano.specs", "--specs=nosys.specs", *machine],
    LIBS=["c", "gcc", "m", "nosys"],
    BUILDERS={
        "ElfToHex": Builder(
            action=env.VerboseAction("$OBJCOPY -O ihex $SOURCES $TARGET", "Building $TARGET"), suffix=".hex"
        )
    },
)

program = env.BuildProgram()
scripts = Path(env.subst("$PROJECT_DIR"), board.get("build.ldscript")).parent.glob("*.ld")
env.Depends(program, sorted(map(str, scripts)))
image = env.ElfToHex("$BUILD_DIR/${PROGNAME}", program)
env.Depends(image, "checkprogsize")
steps = []
if "upload" in COMMAND_LINE_TARGETS:
    steps = [env.VerboseAction(upload_command(), "Uploading $SOURCE")]
AlwaysBuild(env.Alias("upload", image, steps))
Default(image)
