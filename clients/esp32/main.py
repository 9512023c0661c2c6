"""An ESP32 with a DS18B20 and a battery: a reading each `interval_s`, sent every `send_every` readings.

It sleeps in between (deep sleep: the RAM is empty afterwards, so each reading goes to the flash at once).
"""

import binascii
import json
import time

import ds18x20
import machine
import network
import onewire
from logger import Logger

WIFI_S = 20


def blink(pin, times):
    led = machine.Pin(pin, machine.Pin.OUT)
    for _ in range(times):
        led.value(1)
        time.sleep_ms(100)
        led.value(0)
        time.sleep_ms(200)


def reading(pins):
    """Return what the sensors say; a sensor that is not there is left out."""
    fields = {}
    try:
        bus = ds18x20.DS18X20(onewire.OneWire(machine.Pin(pins["temp"])))
        found = bus.scan()
        if found:
            bus.convert_temp()
            time.sleep_ms(750)
            fields["temp_C"] = bus.read_temp(found[0])
    except Exception as error:  # a broken wire must not end the logging of the rest
        print("temperature:", error)
    adc = machine.ADC(machine.Pin(pins["battery"]), atten=machine.ADC.ATTN_11DB)
    fields["batt_V"] = adc.read_uv() * 2.02e-6  # behind a divider by two, measured at one board
    return fields


def connect(wifi):
    """Join the network; False where that takes longer than it may."""
    station = network.WLAN(network.STA_IF)
    station.active(True)
    if not station.isconnected():
        station.connect(wifi["ssid"], wifi["password"])
    begin = time.ticks_ms()
    while not station.isconnected():
        if time.ticks_diff(time.ticks_ms(), begin) > WIFI_S * 1000:
            return False
        time.sleep_ms(100)
    return True


def run():
    watchdog = machine.WDT(timeout=120_000)
    with open("/config.json") as file:
        config = json.load(file)
    mac = binascii.hexlify(network.WLAN(network.STA_IF).config("mac")).decode()
    woke = machine.reset_cause() == machine.DEEPSLEEP_RESET
    log = Logger(config, mac, "/spool", same_boot=woke)
    log.add(reading(config["pins"]))
    saved = log.save()
    # The RTC's memory outlasts deep sleep: how many readings were not tried to send yet.
    memory = machine.RTC().memory()
    count = 1 + (int.from_bytes(memory, "little") if woke else 0)
    if count >= config["send_every"] or not saved:
        count = 0
        if connect(config["wifi"]) and log.send():
            blink(config["pins"]["led"], 1)
        else:
            print("not sent:", log.problem or "no network")
            blink(config["pins"]["led"], 3)
    machine.RTC().memory(count.to_bytes(4, "little"))
    watchdog.feed()
    machine.deepsleep(config["interval_s"] * 1000)


run()
