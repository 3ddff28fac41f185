#!/bin/sh
# Builds the brokers for `make brokers` into target/brokers: those whose tools are here. Says which are left out.
set -eu
cd "$(dirname "$0")"
out="$(cd ../.. && pwd)/target/brokers"
mkdir -p "$out"
if command -v npm >/dev/null; then
  mkdir -p "$out/aedes"
  cp aedes/package.json aedes/package-lock.json aedes/broker.js "$out/aedes/"
  (cd "$out/aedes" && npm ci --silent --no-audit --no-fund)
else
  echo "aedes: NOT SEEN, npm is missing"
fi
if command -v go >/dev/null; then
  (cd go && go build -o "$out/" ./mochi ./nats)
else
  echo "mochi, nats: NOT SEEN, go is missing"
fi
if command -v mvn >/dev/null && command -v java >/dev/null; then
  for broker in hivemq artemis; do
    mkdir -p "$out/$broker"
    cp "$broker/pom.xml" "$broker/Broker.java" "$out/$broker/"
    (cd "$out/$broker" && mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=lib)
  done
else
  echo "hivemq, artemis: NOT SEEN, mvn or java is missing"
fi
