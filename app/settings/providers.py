"""What each delivery provider needs, under the names its vendor uses.

They are one mapping, `Settings.credentials`, and not forty attributes: only the provider itself reads them.
"""

from typing import Final

from app.settings import parsing
from app.settings.model import Variable

_SECRETS: Final = {
    "TWILIO_AUTH_TOKEN": "Twilio: auth token of the account; also checks its callbacks.",
    "VONAGE_API_SECRET": "Vonage: secret of the API key.",
    "MSG91_AUTH_KEY": "MSG91: authentication key.",
    "GUPSHUP_PASSWORD": "Gupshup: password of the account.",
    "META_ACCESS_TOKEN": "Meta: access token of a system user.",
    "META_APP_SECRET": "Meta: the app's secret; checks its callbacks.",
    "META_VERIFY_TOKEN": "Meta: the verify token typed in where the callback URL is set up.",
    "VONAGE_SIGNATURE_SECRET": "Vonage: signature secret (SHA-256 or SHA-512 HMAC); checks its callbacks.",
    "MSG91_WEBHOOK_TOKEN": "MSG91: a secret of your own, in the callback URL as ?token= or as a Bearer token.",
    "GUPSHUP_CALLBACK_TOKEN": "Gupshup: a secret of your own, in the callback URL as ?token= or as a Bearer token.",
    "AWS_SECRET_ACCESS_KEY": "AWS: secret of the access key.",
    "AWS_SESSION_TOKEN": "AWS: session token, with temporary credentials only.",
}
_PLAIN: Final = {
    "TWILIO_ACCOUNT_SID": "Twilio: the account.",
    "TWILIO_FROM": "Twilio: sender number or messaging service of SMS.",
    "TWILIO_CONTENT_SID": "Twilio: approved WhatsApp template for codes.",
    "TWILIO_WHATSAPP_FROM": "Twilio: sender number of WhatsApp messages.",
    "VONAGE_API_KEY": "Vonage: API key.",
    "VONAGE_FROM": "Vonage: sender number or name.",
    "MSG91_TEMPLATE_ID": "MSG91: registered template (DLT).",
    "MSG91_SENDER_ID": "MSG91: registered sender.",
    "GUPSHUP_USER_ID": "Gupshup: the account.",
    "GUPSHUP_TEMPLATE": "Gupshup: registered template.",
    "META_PHONE_NUMBER_ID": "Meta: id of the sending number.",
    "META_TEMPLATE": "Meta: name of the authentication template.",
    "AWS_ACCESS_KEY_ID": "AWS: access key.",
    "AWS_REGION": "AWS: region of SNS.",
    "SNS_SENDER_ID": "AWS SNS: sender name, where the country allows one.",
    "SNS_CALLBACK_TOPIC_ARN": "AWS SNS: the topic that reports on SMS; others are not believed.",
}
_API_URLS: Final = {
    f"{vendor.upper()}_API_URL": f"{vendor}: base URL of the API, where it isn't the vendor's usual one."
    for vendor in ("Twilio", "Vonage", "MSG91", "Gupshup", "Meta", "SNS")
}


def _variables(sentences: dict[str, str], *, secret: bool) -> list[Variable]:
    return [Variable(name, parsing.text, None, sentence, secret) for name, sentence in sentences.items()]


CREDENTIALS: Final = tuple(
    sorted(
        [
            *_variables(_SECRETS, secret=True),
            *_variables(_PLAIN, secret=False),
            *(Variable(name, parsing.web_url, None, sentence, False) for name, sentence in _API_URLS.items()),
        ],
        key=lambda variable: variable.name,
    )
)

# Without these a switched-on provider can't send. A provider of another package checks its own needs. SNS is
# absent: AWS credentials may also come from the machine's role.
REQUIRED: Final = {
    ("sms", "twilio"): ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"),
    ("sms", "vonage"): ("VONAGE_API_KEY", "VONAGE_API_SECRET", "VONAGE_FROM"),
    ("sms", "msg91"): ("MSG91_AUTH_KEY", "MSG91_TEMPLATE_ID"),
    ("sms", "gupshup"): ("GUPSHUP_USER_ID", "GUPSHUP_PASSWORD"),
    ("whatsapp", "twilio"): ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_WHATSAPP_FROM"),
    ("whatsapp", "meta"): ("META_ACCESS_TOKEN", "META_PHONE_NUMBER_ID", "META_TEMPLATE"),
    ("whatsapp", "gupshup"): ("GUPSHUP_USER_ID", "GUPSHUP_PASSWORD"),
}
