"""The records of keys."""

from base64 import b64encode

from mta.mail import Agent, Hop
from mta.settings import DKIMKey, Domain, Settings
from mta.signing.records import records
from tests.signing.test_keys import ED25519, RSA, KeyCase, pem


class RecordTests(KeyCase):
    """What is to be published."""

    def test_records(self) -> None:
        """Each key has one; what can't be read has none."""
        paths = [self.write(pem(RSA), "a"), self.folder / "missing", self.write(pem(ED25519), "c")]
        keys = tuple(DKIMKey(f"s{n}", path) for n, path in enumerate(paths))
        domain = Domain("example.com", Hop(Agent.DISCARD), dkim=keys)
        settings = Settings("mail.example.com", domains={"example.com": domain})
        public = b64encode(ED25519.public_key().public_bytes_raw()).decode()
        found = list(records(settings, "example.com"))
        self.assertEqual(("s2._domainkey.example.com", f"v=DKIM1; k=ed25519; p={public}"), found[1])
        self.assertEqual("s0._domainkey.example.com", found[0].name)
        self.assertRegex(found[0].value, "^v=DKIM1; k=rsa; p=[A-Za-z0-9+/=]{392}$")
        self.assertEqual(2, len(found))
        self.assertEqual([], list(records(settings, "example.org")))
