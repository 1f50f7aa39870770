"""The manual page from what `nibble --experimental-dump-help` prints: manual.py VERSION < JSON > nibble.1"""
import json
import os
import sys
import time


def roff(text):
    """A text that roff shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in text.split("\n"))


def dashed(name):
    return ("-" if name["kind"] == "short" else "--") + name["name"]


def term(argument):
    value = "\\fI" + roff(argument.get("valueName", "value").upper()) + "\\fR"
    if argument["kind"] == "positional":
        return value + (" ..." if argument["isRepeating"] else "")
    names = ", ".join("\\fB" + roff(dashed(name)) + "\\fR" for name in argument["names"])
    return names + (" " + value if argument["kind"] == "option" else "")


def arguments(command, skipped=()):
    shown = [a for a in command.get("arguments", []) if a.get("shouldDisplay", True) and a.get("valueName") not in skipped]
    section = None
    for argument in shown:
        if argument.get("sectionTitle") != section:
            section = argument.get("sectionTitle")
            if section:
                yield ".PP\n" + roff(section) + ":"
        text = argument.get("abstract", "")
        if argument.get("discussion"):
            text += " " + argument["discussion"]
        default = argument.get("defaultValue")
        if default and default != "false":
            text += f" (default: {default})"
        yield ".TP\n" + term(argument) + "\n" + roff(" ".join(text.split()))


def paragraphs(text):
    return "\n.PP\n".join(roff(part.strip()) for part in text.split("\n\n") if part.strip())


def main():
    root = json.load(sys.stdin)["command"]
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    print(f'.TH NIBBLE 1 "{date}" "nibble {roff(sys.argv[1])}" "User Commands"')
    print(".SH NAME\nnibble \\- run large language models on the hardware you have")
    print(".SH SYNOPSIS\n.B nibble\n\\fICOMMAND\\fR \\fIMODEL\\fR [\\fIOPTIONS\\fR]")
    print(".SH DESCRIPTION\n" + paragraphs(root.get("discussion", "")))
    print(".SH COMMANDS")
    hidden = ("help", "version")
    for command in root["subcommands"]:
        if command["commandName"] == "help" or not command.get("shouldDisplay", True):
            continue
        print(f'.SS nibble {roff(command["commandName"])}')
        print(roff(command.get("abstract", "")))
        if command.get("discussion"):
            print(".PP\n" + paragraphs(command["discussion"]))
        print("\n".join(arguments(command, hidden)))
    print(".SH EXIT STATUS\n0 when done, 1 after a failure with one line on standard error, 64 for wrong usage.")
    print(".SH FILES\n.TP\n\\fI~/.cache/huggingface/hub\\fR\nModels that were downloaded. HF_HOME and HF_HUB_CACHE move it.")


main()
