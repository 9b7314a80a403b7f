//! A calendar as bytes, for a snapshot.
//!
//! All numbers are little-endian. A format (1 byte), now, past, closed (8 each),
//! the number of layers (1); for each layer width (8), capacity (1), gap (1), end
//! (8), the number of its pages (4), and each page with its number (8 + 256).

use super::{
    Calendar, Grid, LAYERS_MAX,
    layer::{Layer, SPAN},
};

/// The format that is written, and the only one that is read.
const FORMAT: u8 = 1;
/// Instants are below 2⁵³ µs, and what is closed ends at most two buckets later.
const NUMBER_MAX: u64 = 1 << 54;

impl Calendar {
    /// The calendar as bytes.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        for number in [self.now, self.past, self.closed] {
            bytes.extend(number.to_le_bytes());
        }
        // There are at most four.
        bytes.push(self.layers.len() as u8);
        for layer in &self.layers {
            pack_layer(&mut bytes, layer);
        }
        bytes
    }

    /// The calendar that was packed; `None` when none was packed like this.
    #[must_use]
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        if rest.byte()? != FORMAT {
            return None;
        }
        let (now, past, closed) = (rest.number()?, rest.number()?, rest.number()?);
        let count = usize::from(rest.byte()?);
        let layers: Option<Vec<Layer>> = (0..count).map(|_| rest.layer(past)).collect();
        let is_whole = rest.0.is_empty() && count <= LAYERS_MAX;
        layers.filter(|_| is_whole).map(|layers| Self { now, past, closed, layers })
    }
}

fn pack_layer(bytes: &mut Vec<u8>, layer: &Layer) {
    let grid = layer.grid;
    bytes.extend(grid.width().to_le_bytes());
    bytes.extend([grid.capacity(), u8::from(grid.has_gap())]);
    bytes.extend(layer.end.to_le_bytes());
    let pages = layer.pages();
    // Pages lie within a horizon of fewer than a thousand.
    bytes.extend((pages.len() as u32).to_le_bytes());
    for (page, buckets) in pages {
        bytes.extend(page.to_le_bytes());
        bytes.extend(buckets);
    }
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        let number = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        (number <= NUMBER_MAX).then_some(number)
    }

    fn layer(&mut self, past: u64) -> Option<Layer> {
        let (width, capacity, gap) = (self.number()?, self.byte()?, self.byte()?);
        let grid = Grid::from_parts(width, capacity, gap != 0)?;
        let mut layer = Layer::new(grid);
        layer.end = self.number()?;
        let pages = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
        for _ in 0..pages {
            let page = self.number()?;
            layer.put(page, self.take(SPAN as usize)?)?;
        }
        layer.forget(past);
        Some(layer)
    }
}
