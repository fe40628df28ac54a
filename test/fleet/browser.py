"""Open a noVNC page in headless Chromium and save a picture when the guest's screen is there.

Usage: browser.py URL NAME ADDRESS PICTURE — NAME in the URL is looked up as ADDRESS.
A program of its own, since it runs in the lab's network.
"""

import sys
import time

from selenium import webdriver

SECONDS = 60
# How many of the canvas's points are lit; an empty screen has none.
LIT = """
const canvas = document.querySelector('canvas');
if (!canvas || !canvas.width) return 0;
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let lit = 0;
for (let i = 0; i < data.length; i += 4)
    lit += data[i] + data[i + 1] + data[i + 2] > 120;
return canvas.width > 300 ? lit : 0;
"""
# The full page of noVNC waits for a click, the light one connects by itself.
CONNECT = """
const button = document.getElementById('noVNC_connect_button');
if (button && !document.documentElement.classList.contains('noVNC_connected')
    && !document.documentElement.classList.contains('noVNC_connecting')) button.click();
"""


def save(url: str, name: str, address: str, picture: str) -> None:
    """Save a picture of the page once it shows a screen that is not black."""
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--window-size=1024,768", f"--host-resolver-rules=MAP {name} {address}"):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options)
    try:
        browser.get(url)
        deadline = time.monotonic() + SECONDS
        while browser.execute_script(LIT) < 500:
            if time.monotonic() > deadline:
                browser.save_screenshot(picture)
                sys.exit(f"The guest's screen did not show within {SECONDS} s; see {picture}.")
            browser.execute_script(CONNECT)
            time.sleep(0.5)
        time.sleep(1)  # the rest of a first frame
        browser.save_screenshot(picture)
    finally:
        browser.quit()


if __name__ == "__main__":
    save(*sys.argv[1:])
