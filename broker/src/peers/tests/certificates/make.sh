#!/bin/sh
# Makes the certificates of tests, here or in the directory that is named: two authorities, three nodes of the first, one of the
# second. They are good for a hundred years and for nothing else.
set -eu
cd "${1:-$(dirname "$0")}"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$1" \
        -addext keyUsage=critical,keyCertSign -keyout "$work/$1.key" -out "$1.pem"
}

node() { # authority, number, file
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=node $2" -keyout "$work/key" -out "$work/request"
    printf 'subjectAltName=DNS:peer.varve,DNS:node-%s.peer.varve\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n' \
        "$2" >"$work/extensions"
    openssl x509 -req -in "$work/request" -CA "$1.pem" -CAkey "$work/$1.key" -CAcreateserial -CAserial "$work/serial" -days 36500 \
        -extfile "$work/extensions" -out "$work/certificate"
    cat "$work/certificate" "$work/key" >"$3.pem"
}

authority authority
authority stranger
node authority 1 node-1
node authority 2 node-2
node authority 3 node-3
node stranger 2 strange-node-2
