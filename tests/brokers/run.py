"""A job that is killed twice, at each broker and in each version of MQTT: what was sent, what came out.

Called with the path of the forebay binary and, if not all, the names of brokers. The process is killed at 1,000
messages and started again, killed at 2,000 and away for 1,500 (`--away`); then 500 more are sent. Prints a table:

- missing: numbers that did not come out until none that is new came for 40 s
- sent again: rows that the output sent twice, with one row id
- stored twice: messages that the broker delivered twice and that were not recognised, with two row ids
- counted: what the ledger says may have been stored twice (`source_redelivered_possible`)

Ends with 1 when a row is missing at a broker that is not known to lose some, or none at one that is known to get
nowhere, and when more is stored twice than counted.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILT = os.path.join(ROOT, "target", "brokers")
KILL, AWAY, AFTER = 1000, 2000, 500
# messages a second
RATE = 1000
# without one more number for this number of seconds a run is over; NATS sends again what was not acknowledged for 30 s
QUIET = 40
JOB = """[job]
name = "job"
query = "job.asaql"
[metrics]
listen = "127.0.0.1:0"
[inputs.a]
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
protocol = "{protocol}"
topics = ["in/+"]
[outputs.b]
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
protocol = "{protocol}"
topic = "out"
row_id = "id"
"""



def java(name):
    """A main in one file, with the libraries beside it."""
    folder = os.path.join(BUILT, name)
    return ["java", "-cp", os.path.join(folder, "lib", "*"), os.path.join(folder, "Broker.java")]


# name: versions of MQTT, and the command, in which {} is an empty folder and {queue} how many messages are kept
BROKERS = {
    "mosquitto": (["5", "3.1.1"], ["mosquitto", "-c", "{}/mosquitto.conf"]),
    "mochi": (["3.1.1", "5"], [os.path.join(BUILT, "mochi")]),
    "aedes": (["3.1.1"], ["node", os.path.join(BUILT, "aedes", "broker.js")]),
    "nats": (["3.1.1"], [os.path.join(BUILT, "nats"), "{}"]),
    "hivemq": (["5", "3.1.1"], [*java("hivemq"), "{}", "{queue}"]),
    "artemis": (["5", "3.1.1"], [*java("artemis"), "{}"]),
}
# that is: no limit
QUEUE_MAX = 1_000_000


# mochi 2.7.9 answers a message in MQTT 5 with PUBACK code 0x01, which there is not: the output does not get on
STUCK = {("mochi", "5")}
# mochi 2.7.9 on a busy machine: some messages that it has confirmed, of those that came right when a client was back,
# never leave it. Seen on the wire: they are not among the bytes that it sent to the client
LOSES = {("mochi", "3.1.1"), ("mochi", "auto")}
# more than this number of them is another fault
LOSES_MAX = 200


def is_built(name):
    files = [part for part in BROKERS[name][1] if part.startswith(BUILT) and not part.endswith("*")]
    return all(os.path.exists(file) for file in files)


def until(what, holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def start_broker(name, folder, queue):
    """The process and its port."""
    kept = str(int(queue) or QUEUE_MAX)
    command = [part.replace("{}", folder).replace("{queue}", kept) for part in BROKERS[name][1]]
    if name != "mosquitto":
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return process, int(process.stdout.readline())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(os.path.join(folder, "mosquitto.conf"), "w") as conf:
        conf.write(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages {queue}\n")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until("mosquitto", listens)
    return process, port


class Forebay:
    """A process of the job."""

    def __init__(self, binary, folder):
        self.log = os.path.join(folder, "log")
        with open(self.log, "a") as log:
            log.write("--- start\n")
            log.flush()
            self.process = subprocess.Popen(
                [binary, "run", os.path.join(folder, "job.toml")], stderr=log, env={**os.environ, "FOREBAY_LOG": "info"}
            )

    def lines(self):
        return open(self.log).read().rsplit("--- start", 1)[1]

    def metric(self, name):
        """Its value; 0 before there is one."""
        port = re.search(r"metrics on http://([0-9.:]+)", self.lines())
        if not port:
            return 0
        with urllib.request.urlopen(f"http://{port[1]}/metrics") as answer:
            found = re.search(rf"forebay_{name}\{{[^}}]*\}} ([0-9.]+)", answer.read().decode())
        return int(float(found[1])) if found else 0

    def wait(self):
        """Until the input is subscribed."""
        until("the subscription", lambda: self.metric("source_connected") == 1, 60)


def kill(process):
    process.kill()
    process.wait(60)


def client(tool, port, *arguments):
    return [tool, "-h", "127.0.0.1", "-p", str(port), "-V", "mqttv311", "-q", "1", *arguments]


def subscribe(port, rows):
    """A subscriber that writes payloads to a file; it is subscribed when this returns."""
    command = client("mosquitto_sub", port, "-i", "receiver", "-c", "-t", "out", "-F", "%p")
    process = subprocess.Popen(command, stdout=open(rows, "w"), stderr=subprocess.DEVNULL)
    probe = client("mosquitto_pub", port, "-t", "out", "-m", "{}")

    def is_subscribed():
        subprocess.run(probe, check=True)
        time.sleep(0.1)
        return os.path.getsize(rows) > 0

    until("the subscriber", is_subscribed)
    return process


def read(rows):
    """Row ids by number, and how many rows."""
    ids, count = collections.defaultdict(set), 0
    for line in open(rows):
        if line.endswith("\n") and "n" in (row := json.loads(line)):
            ids[row["n"]].add(row["id"])
            count += 1
    return ids, count


def one(options, name, protocol):
    """Runs the job; the line of the table."""
    back = AWAY + options.away
    messages = back + AFTER
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
        broker, port = start_broker(name, folder, options.queue)
        processes.callback(kill, broker)
        with open(os.path.join(folder, "job.toml"), "w") as job:
            job.write(JOB.format(port=port, protocol=protocol))
        with open(os.path.join(folder, "job.asaql"), "w") as query:
            query.write("SELECT n INTO b FROM a\n")
        rows = os.path.join(folder, "rows")
        processes.callback(kill, subscribe(port, rows))

        def start():
            forebay = Forebay(options.forebay, folder)
            processes.callback(kill, forebay.process)
            return forebay

        forebay = start()
        forebay.wait()
        command = client("mosquitto_pub", port, "-t", "in/a", "-l")
        publisher = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        processes.callback(kill, publisher)
        for n in range(messages):
            publisher.stdin.write(json.dumps({"n": n}) + "\n")
            if n % 100 == 99:
                publisher.stdin.flush()
                time.sleep(100 / RATE)
            if n == KILL:
                kill(forebay.process)
                forebay = start()
            elif n == AWAY:
                forebay.wait()
                kill(forebay.process)
            elif n == back:
                forebay = start()
        publisher.stdin.close()
        publisher.wait(60)
        ids, count, since = {}, 0, time.monotonic()
        while len(ids) < messages and time.monotonic() - since < QUIET:
            before = len(ids)
            ids, count = read(rows)
            # an output that does not get on sends the same rows again and again
            if len(ids) != before:
                since = time.monotonic()
            time.sleep(0.2)
        log = open(forebay.log).read()
        possible = forebay.metric("source_redelivered_possible_total")
        forebay.process.terminate()
        forebay.process.wait(60)
    spoken = "3.1.1" if "speaking MQTT 3.1.1" in log or protocol == "3.1.1" else "5"
    twins = sum(len(found) - 1 for found in ids.values())
    lost = messages - len(ids)
    return [name, protocol, spoken, messages, len(ids), lost, count - len(ids) - twins, twins, possible]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay", type=os.path.abspath)
    parser.add_argument("brokers", nargs="*", metavar="BROKER", help=", ".join(BROKERS))
    parser.add_argument("--away", type=int, default=1500, metavar="MESSAGES")
    parser.add_argument("--queue", default="0", help="messages that mosquitto and HiveMQ keep; 0: no limit")
    options = parser.parse_intermixed_args()
    options.brokers = options.brokers or list(BROKERS)
    head = ["broker", "`protocol`", "spoken", "sent", "arrived", "missing", "sent again", "stored twice", "counted"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    surprises = []
    for name in options.brokers:
        if not is_built(name):
            print(f"| {name} | NOT SEEN: it is not built |", flush=True)
            continue
        for protocol in ["auto", *BROKERS[name][0]]:
            line = one(options, name, protocol)
            print("| " + " | ".join(map(str, line)) + " |", flush=True)
            known = LOSES_MAX if (name, protocol) in LOSES else 0
            if (line[5] > known) != ((name, protocol) in STUCK):
                surprises.append(f"{name} with `protocol = \"{protocol}\"`: {line[5]} missing")
            if line[7] > line[8]:
                surprises.append(f"{name} with `protocol = \"{protocol}\"`: {line[7]} stored twice, {line[8]} counted")
    sys.exit("\n".join(surprises) or 0)


if __name__ == "__main__":
    main()
