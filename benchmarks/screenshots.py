"""Screenshots of five programs, other ones than those that the rule for plain grounds was looked at with.

A mail list, a dashboard, a program's text in dark colors, a settings page of a telephone, and a web shop.
Within a program everything but the content is the same. They were made once, after the rule was final, and
only figures are told of them: nothing may be set by them.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rng = np.random.Generator
_SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ren",
    "tu",
    "sha",
    "vor",
    "ed",
    "in",
    "qua",
    "pel",
    "os",
    "dri",
    "ban",
    "ze",
    "um",
)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(f"Liberation{name}.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def words(rng: Rng, n: int) -> str:
    return " ".join("".join(rng.choice(_SYLLABLES, 1 + rng.poisson(1.4))) for _ in range(n))


def screenshot(rng: Rng, program: int) -> Image.Image:
    return (mail, dashboard, code, settings, shop)[program](rng)


def mail(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (1280, 800), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1280, 64), fill=(245, 245, 247))
    draw.rounded_rectangle((260, 14, 900, 50), 18, fill=(232, 234, 240))
    draw.text((290, 22), "Search mail", fill=(120, 120, 130), font=font("Sans-Regular", 18))
    for row, label in enumerate(("Inbox", "Starred", "Sent", "Drafts", "Archive", "Spam", "Bin")):
        draw.text((40, 96 + 44 * row), label, fill=(40, 40, 50), font=font("Sans-Regular", 19))
    for y in range(72, 800, 42):
        draw.line((220, y + 41, 1280, y + 41), fill=(230, 230, 235))
        draw.rectangle((238, y + 13, 254, y + 29), outline=(150, 150, 160))
        face = font("Sans-Bold" if rng.random() < 0.4 else "Sans-Regular", 17)
        draw.text((290, y + 10), words(rng, 2).title()[:22], fill=(20, 20, 25), font=face)
        draw.text((520, y + 10), words(rng, int(rng.integers(4, 9)))[:62], fill=(70, 70, 80), font=face)
        draw.text(
            (1200, y + 10), f"{rng.integers(1, 29)} Mar", fill=(90, 90, 100), font=font("Sans-Regular", 16)
        )
    return image


def dashboard(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (1600, 900), (243, 244, 246))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 90, 900), fill=(31, 41, 55))
    for y in range(40, 600, 80):
        draw.ellipse((29, y, 61, y + 32), outline=(156, 163, 175), width=3)
    for column in range(4):
        left = 120 + 370 * column
        draw.rounded_rectangle((left, 40, left + 340, 180), 14, fill="white")
        draw.text((left + 22, 60), words(rng, 2).title(), fill=(107, 114, 128), font=font("Sans-Regular", 20))
        draw.text(
            (left + 22, 100), f"{rng.integers(100, 99999):,}", fill=(17, 24, 39), font=font("Sans-Bold", 46)
        )
    for column, width in ((0, 1080), (1, 340)):
        left = 120 + 1110 * column
        draw.rounded_rectangle((left, 210, left + width, 860), 14, fill="white")
        for line in range(6):
            draw.line((left + 40, 290 + 90 * line, left + width - 30, 290 + 90 * line), fill=(229, 231, 235))
    steps = np.cumsum(rng.normal(size=(2, 60)), axis=1)
    for values, color in zip(steps, ((37, 99, 235), (234, 88, 12)), strict=True):
        y = 500 - 200 * values / np.abs(values).max()
        points = [(160 + 17 * at, float(level)) for at, level in enumerate(y)]
        draw.line(points, fill=color, width=4)
    for bar, share in enumerate(rng.uniform(0.1, 1, 7)):
        draw.rectangle((1275 + 40 * bar, 740 - 440 * share, 1300 + 40 * bar, 740), fill=(16, 185, 129))
    return image


def code(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (1400, 900), (30, 30, 34))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 260, 900), fill=(37, 37, 42))
    for y in range(20, 880, 30):
        draw.text((24, y), words(rng, 1)[:14] + ".rs", fill=(170, 170, 180), font=font("Sans-Regular", 17))
    colors = ((86, 156, 214), (206, 145, 120), (220, 220, 170), (212, 212, 212), (106, 153, 85))
    indent = 0
    for number, y in enumerate(range(16, 880, 24), 1):
        draw.text((280, y), f"{number:>3}", fill=(110, 110, 120), font=font("Mono-Regular", 17))
        indent = int(np.clip(indent + rng.integers(-1, 2), 0, 5))
        x = 340.0 + 40 * indent
        for _ in range(int(rng.integers(0, 7))):
            text = words(rng, 1) + str(rng.choice([" ", "(", ") ", " = ", ";", ", "]))
            draw.text((x, y), text, fill=colors[rng.integers(5)], font=font("Mono-Regular", 17))
            x += draw.textlength(text, font=font("Mono-Regular", 17))
    return image


def settings(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (720, 1280), (242, 242, 247))
    draw = ImageDraw.Draw(image)
    draw.text((40, 80), "Settings", fill="black", font=font("Sans-Bold", 56))
    y = 190
    for n_rows in (3, 5, 4):
        draw.rounded_rectangle((30, y, 690, y + 78 * n_rows), 22, fill="white")
        for row in range(n_rows):
            top = y + 78 * row
            draw.rounded_rectangle(
                (54, top + 17, 98, top + 61), 10, fill=tuple(rng.integers(40, 230, 3).tolist())
            )
            draw.text(
                (124, top + 22), words(rng, 2).title()[:20], fill="black", font=font("Sans-Regular", 30)
            )
            if rng.random() < 0.5:
                is_on = rng.random() < 0.5
                draw.rounded_rectangle(
                    (590, top + 18, 664, top + 60), 21, fill=(52, 199, 89) if is_on else (224, 224, 228)
                )
                x = 622 if is_on else 592
                draw.ellipse((x, top + 20, x + 38, top + 58), fill="white")
            else:
                draw.text(
                    (480, top + 24), words(rng, 1)[:10], fill=(140, 140, 147), font=font("Sans-Regular", 28)
                )
            draw.line((124, top + 77, 690, top + 77), fill=(228, 228, 232))
        y += 78 * n_rows + 44
    return image


def shop(rng: Rng) -> Image.Image:
    image = Image.new("RGB", (1280, 1000), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1280, 80), fill=(35, 47, 62))
    draw.text((40, 20), "bazaar", fill="white", font=font("Serif-Bold", 36))
    for row in range(2):
        for column in range(4):
            left, top = 30 + 312 * column, 110 + 440 * row
            draw.rectangle((left, top, left + 280, top + 260), fill=(247, 247, 247))
            for _ in range(int(rng.integers(1, 5))):
                x, y = rng.uniform(40, 220, 2)
                size = rng.uniform(20, 60)
                box = (left + x - size / 2, top + y - size / 2, left + x + size / 2, top + y + size / 2)
                draw.ellipse(box, fill=tuple(rng.integers(0, 230, 3).tolist()))
            text = words(rng, 7)
            draw.multiline_text(
                (left, top + 276),
                f"{text[:28]}\n{text[28:56]}",
                fill=(15, 17, 17),
                font=font("Sans-Regular", 19),
            )
            price = f"{rng.integers(1, 400)}.{rng.integers(10, 99)}"
            draw.text((left, top + 336), price, fill=(177, 39, 4), font=font("Sans-Bold", 26))
    return image
