"""What PlatformIO tells the compiler and the linker for a chip without a framework, beside the platform's own flags.

SCons executes this file. `build_flags` would not do: of those that say which machine, the linker gets none.
"""

Import("env")  # type: ignore[name-defined]  # noqa: F821

FPU = ["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
env.Append(  # type: ignore[name-defined]  # noqa: F821
    ASFLAGS=FPU,
    CCFLAGS=FPU,
    # a linker script finds the common part through -L; the C library does not say whether it runs code on the stack
    LINKFLAGS=[*FPU, "-nostartfiles", "-Wl,-L,firmware/ports/nrf52", "-Wl,-z,noexecstack"],
)
