"""Builds a program for this machine; SCons runs it for our `native` platform."""

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
program = env.BuildProgram()
run = env.VerboseAction("$SOURCE $PROGRAM_ARGS", "Running $SOURCE")
for target in ("exec", "upload"):
    AlwaysBuild(env.Alias(target, program, run))
Default(program)
