"""PyKMIP's server as a program: `python kmip_kms.py PORT CERTIFICATE KEY CA FOLDER`. It serves until it is killed."""

import logging
import sys
from pathlib import Path

from kmip.services.server.server import KmipServer


def main(port: str, certificate: str, key: str, ca: str, folder: str) -> None:
    home = Path(folder)
    (home / "policy").mkdir(parents=True, exist_ok=True)
    server = KmipServer(
        hostname="127.0.0.1",
        port=int(port),
        certificate_path=certificate,
        key_path=key,
        ca_path=ca,
        auth_suite="TLS1.2",
        config_path=None,
        log_path=str(home / "server.log"),
        policy_path=str(home / "policy"),
        enable_tls_client_auth=True,
        logging_level="INFO",
        database_path=f"{home / 'kms.db'}",
    )
    with server:
        server.serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main(*sys.argv[1:])
