"""Builds an image for an AVR and uploads it; SCons runs it for our `atmelavr` platform."""

import shutil
import sys

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Builder, Default, DefaultEnvironment

PACKAGES = "gcc-avr avr-libc binutils-avr arduino-core-avr"

env = DefaultEnvironment()


def need(tool: str, packages: str) -> None:
    """End the build unless a tool is on PATH."""
    if shutil.which(tool) is None:
        sys.stderr.write(f"Error: {tool} is missing; install it with `apt-get install {packages}`\n")
        env.Exit(1)


need("avr-gcc", PACKAGES)
need("avr-objcopy", PACKAGES)
env.Replace(
    AR="avr-gcc-ar",
    AS="avr-as",
    CC="avr-gcc",
    CXX="avr-g++",
    OBJCOPY="avr-objcopy",
    RANLIB="avr-gcc-ranlib",
    SIZETOOL="avr-size",
    ARFLAGS=["rcs"],
    PROGSUFFIX=".elf",
    SIZEPROGREGEXP=r"^(?:\.text|\.data|\.bootloader)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.noinit)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    UPLOADER="avrdude",
    UPLOADERFLAGS=[
        "-p", "$BOARD_MCU", "-c", "$UPLOAD_PROTOCOL", "-P", "$UPLOAD_PORT", "-b", "$UPLOAD_SPEED", "-D",
    ],
    UPLOADCMD='"$UPLOADER" $UPLOADERFLAGS -U "flash:w:$SOURCES:i"',
)  # fmt: skip
env.Append(
    BUILDERS={
        "ElfToHex": Builder(
            action=env.VerboseAction("$OBJCOPY -O ihex -R .eeprom $SOURCES $TARGET", "Building $TARGET"),
            suffix=".hex",
        )
    }
)

program = env.BuildProgram()
image = env.ElfToHex("$BUILD_DIR/${PROGNAME}", program)
if "upload" in COMMAND_LINE_TARGETS:
    need("avrdude", "avrdude")
steps = [
    env.VerboseAction(env.AutodetectUploadPort, "Looking for upload port..."),
    env.VerboseAction("$UPLOADCMD", "Uploading $SOURCE"),
]
AlwaysBuild(env.Alias("upload", image, steps))
Default(image)
