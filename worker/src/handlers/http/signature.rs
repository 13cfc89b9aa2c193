//! Signatures as in Standard Webhooks: what they are made of, and nothing of where they go.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

/// Marks a secret that is written as base64.
const BASE64_PREFIX: &str = "whsec_";

/// Signs requests with one secret.
pub(super) struct Signer {
    key: SecretSlice<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// Takes a secret: `whsec_` and base64, or any text.
    pub(super) fn new(secret: &str) -> Result<Self, &'static str> {
        let secret = secret.trim();
        let key = match secret.strip_prefix(BASE64_PREFIX) {
            Some(encoded) => BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| "names a secret that begins with whsec_, but what follows is not base64")?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err("names a secret that is empty");
        }
        Ok(Self { key: key.into() })
    }

    /// The value of `webhook-signature` for a message.
    pub(super) fn sign(&self, id: &str, sent_at: i64, body: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{sent_at}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementations of Standard Webhooks.
    #[test]
    fn the_known_message_has_the_known_signature() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            signer.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_in_base64_is_the_secret_itself() {
        let encoded = Signer::new("whsec_c2VjcmV0").unwrap();
        let plain = Signer::new("secret\n").unwrap();
        assert_eq!(encoded.sign("id", 1, b"{}"), plain.sign("id", 1, b"{}"));
    }

    #[test]
    fn refuses_what_is_no_secret_and_shows_none() {
        assert!(Signer::new("  ").unwrap_err().contains("empty"));
        assert!(Signer::new("whsec_").unwrap_err().contains("empty"));
        assert!(Signer::new("whsec_###").unwrap_err().contains("base64"));
        assert_eq!(format!("{:?}", Signer::new("hush").unwrap()), "Signer");
    }
}
