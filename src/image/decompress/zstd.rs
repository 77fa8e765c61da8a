//! Zstandard frames (RFC 8878), skippable ones included.

use super::input::Input;
use super::{Compression, DecodeError};
use crate::base::units::Bytes;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::Read;

/// A zstd stream.
pub struct Zstd {
    decoder: FrameDecoder,
    in_frame: bool,
    window: Bytes,
}

impl Zstd {
    /// `window` is the most memory that a frame may ask for.
    pub fn new(window: Bytes) -> Zstd {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window.0);
        Zstd { decoder, in_frame: false, window }
    }

    /// Decompresses until `output` is full or the stream ends; how many bytes there are.
    pub fn produce(&mut self, input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, DecodeError> {
        let mut done = 0;
        while done < output.len() {
            if !self.in_frame {
                if input.buffer()?.is_empty() {
                    break;
                }
                self.begin(input)?;
                continue;
            }
            let made = self.decoder.read(&mut output[done..]).map_err(DecodeError::Read)?;
            done += made;
            if made > 0 {
                continue;
            }
            if self.decoder.is_finished() {
                self.end()?;
                continue;
            }
            let step = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder.decode_blocks(&mut *input, step).map_err(|error| self.failure(input, &error))?;
        }
        Ok(done)
    }

    /// Takes a frame's header, or all of a skippable frame.
    fn begin(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        // The decoder checks the window before it allocates one.
        match self.decoder.reset(&mut *input) {
            Ok(()) => self.in_frame = true,
            Err(FrameDecoderError::ReadFrameHeaderError(
                ruzstd::decoding::errors::ReadFrameHeaderError::SkipFrame { length, .. },
            )) => {
                let mut left = u64::from(length);
                while left > 0 {
                    let ready = input.buffer()?.len() as u64;
                    if ready == 0 {
                        return Err(DecodeError::Truncated(Compression::Zstd));
                    }
                    let step = ready.min(left);
                    input.consume(step as usize);
                    left -= step;
                }
            }
            Err(error) => return Err(self.failure(input, &error)),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        self.in_frame = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(stored), Some(calculated)) if stored != calculated => Err(DecodeError::Checksum(Compression::Zstd)),
            _ => Ok(()),
        }
    }

    fn failure(&self, input: &Input<'_>, error: &FrameDecoderError) -> DecodeError {
        match error {
            FrameDecoderError::WindowSizeTooBig { requested, .. } => {
                DecodeError::Window { wanted: Bytes(*requested), cap: self.window }
            }
            _ if input.ended => DecodeError::Truncated(Compression::Zstd),
            error => DecodeError::Corrupt(Compression::Zstd, where_wrong(error).into()),
        }
    }
}

/// Where in a stream something is wrong. What the decoder itself says about it is ten kilobytes of program, and no more
/// of use to who has to copy the file again.
fn where_wrong(error: &FrameDecoderError) -> &'static str {
    match error {
        FrameDecoderError::ReadFrameHeaderError(_) | FrameDecoderError::FrameHeaderError(_) => "in a frame's header",
        FrameDecoderError::FailedToReadBlockHeader(_) => "in a block's header",
        FrameDecoderError::FailedToReadBlockBody(_) => "in a block",
        FrameDecoderError::FailedToReadChecksum(_) => "in a checksum",
        FrameDecoderError::DictNotProvided { .. } => "it needs a dictionary",
        _ => "in a frame",
    }
}
