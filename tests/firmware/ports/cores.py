"""Arduino's cores as the port meets them: the defines of their builds, and the folders of their stand-ins."""

from __future__ import annotations

from pathlib import Path

from tests.firmware.conftest import FIRMWARE

STAND_INS = Path(__file__).with_name("stand_ins")
PORT = tuple(sorted((FIRMWARE / "ports" / "arduino").rglob("*.cpp")))
RATES = (115_200, 1_000_000)  # at boot, and the fastest
ESP32 = "ARDUINO_ARCH_ESP32"
# name: folder in stand_ins, and the defines that PlatformIO's build of the core makes
CORES: dict[str, tuple[str, tuple[str, ...]]] = {
    "nrf5": ("nrf5", ("ARDUINO_ARCH_NRF5",)),
    "adafruit": ("adafruit", ("ARDUINO_ARCH_NRF52", "ARDUINO_NRF52_ADAFRUIT", "USE_TINYUSB")),
    "mbed": ("mbed", ("ARDUINO_ARCH_MBED",)),
    "renesas": ("renesas", ("ARDUINO_ARCH_RENESAS",)),
    "esp32": ("esp32", (ESP32,)),
    "esp32-hwcdc": ("esp32", (ESP32, "ARDUINO_USB_CDC_ON_BOOT=1", "ARDUINO_USB_MODE=1")),
    "esp32-usbcdc": ("esp32", (ESP32, "ARDUINO_USB_CDC_ON_BOOT=1", "ARDUINO_USB_MODE=0")),
}


def flags_for(core: str) -> tuple[str, ...]:
    """Return what the compiler is told for the port on a core, besides the link's sizes and rates."""
    folder, defines = CORES[core]
    return (f"-I{FIRMWARE}", f"-I{STAND_INS / folder}", *(f"-D{define}" for define in defines))
