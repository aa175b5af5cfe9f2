"""Personal data in text: detectors and masking, as pure functions, for English and Chinese.

`find` names what it finds: email, phone, chinese_id, bank_card, ip, key (API keys, tokens, passwords, private keys). Numbers
count by their shape, their check digits and the words before them, so that versions, dates and order numbers stay. What
identifies nobody is not personal: private, loopback and documentation addresses stay. Every detector takes time linear in the
text, whatever the text.
"""

from chatwright.pii.detect import find, mask
from chatwright.pii.finding import KINDS, Finding, Kind

__all__ = ["KINDS", "Finding", "Kind", "find", "mask"]
