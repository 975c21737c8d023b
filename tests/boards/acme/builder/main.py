"""Builds an image for Acme's chip, which is this machine; SCons runs it."""

from pathlib import Path

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
library = str(Path(env.PioPlatform().get_dir()) / "library")
env.Append(CPPPATH=[library], LIBS=[env.BuildLibrary("$BUILD_DIR/acme", library)])
Default(env.BuildProgram())
