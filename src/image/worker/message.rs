//! What a worker tells its parent: messages of one size over a pipe, each written whole (pipe(7), PIPE_BUF).
#![forbid(unsafe_code)]

use crate::image::archive::Progress;
use crate::image::{ImageError, Kind};

/// Bytes of a message: below PIPE_BUF (4096), and a pipe holds 64 of them.
pub const MESSAGE_BYTES: usize = 1024;
const TEXT: usize = 24;

/// What a worker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// How far it is.
    Progress(Progress),
    /// The layers and the record are staged and synced.
    Done,
    /// It gave up.
    Failed(ImageError),
}

impl Message {
    /// The message as bytes. A sentence that is too long is cut.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0u8; MESSAGE_BYTES];
        match self {
            Message::Progress(progress) => {
                bytes[0] = 1;
                bytes[2..4].copy_from_slice(&progress.layer.to_le_bytes());
                bytes[4..6].copy_from_slice(&progress.layers.to_le_bytes());
                bytes[8..16].copy_from_slice(&progress.done.to_le_bytes());
                bytes[16..24].copy_from_slice(&progress.total.to_le_bytes());
            }
            Message::Done => bytes[0] = 2,
            Message::Failed(error) => {
                bytes[0] = if error.kind() == Kind::Invalid { 3 } else { 4 };
                let mut length = error.text().len().min(MESSAGE_BYTES - TEXT);
                while !error.text().is_char_boundary(length) {
                    length -= 1;
                }
                bytes[2..4].copy_from_slice(&(length as u16).to_le_bytes());
                bytes[TEXT..TEXT + length].copy_from_slice(&error.text().as_bytes()[..length]);
            }
        }
        bytes
    }

    /// Reads a message. The worker met hostile bytes, so nothing is believed of it: what is no message is `None`, and
    /// a sentence is shown without control characters.
    pub fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Option<Message> {
        let [kind, _, a, b, c, d, ..] = *bytes;
        let wide = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
        match kind {
            1 => Some(Message::Progress(Progress {
                layer: u16::from_le_bytes([a, b]),
                layers: u16::from_le_bytes([c, d]),
                done: wide(8)?,
                total: wide(16)?,
            })),
            2 => Some(Message::Done),
            3 | 4 => {
                let length = usize::from(u16::from_le_bytes([a, b]));
                let text = String::from_utf8_lossy(bytes.get(TEXT..TEXT + length)?);
                let text: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
                let kind = if kind == 3 { Kind::Invalid } else { Kind::Failed };
                Some(Message::Failed(ImageError::new(kind, &text)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_they_are_written() {
        let progress = Progress { done: 1 << 40, total: u64::MAX, layer: 3, layers: 127 };
        for message in
            [Message::Progress(progress), Message::Done, Message::Failed(ImageError::failed(&"no space for \u{e9}"))]
        {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn nothing_of_a_message_is_believed() {
        let mut bytes = Message::Failed(ImageError::invalid(&"a\nb\u{1b}[2J")).encode();
        let Some(Message::Failed(error)) = Message::decode(&bytes) else { panic!() };
        assert_eq!(error.text(), "a\u{FFFD}b\u{FFFD}[2J");
        bytes[2..4].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(Message::decode(&bytes), None);
        assert_eq!(Message::decode(&[9; MESSAGE_BYTES]), None);
        let long = Message::Failed(ImageError::invalid(&"\u{e9}".repeat(2000)));
        let Some(Message::Failed(cut)) = Message::decode(&long.encode()) else { panic!() };
        assert_eq!(cut.text().len(), 1000);
    }
}
