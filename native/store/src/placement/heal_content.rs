//! The right content of a thing that lies in slots, put together from the copies that are left. What is right is
//! said by what names it: a table's description and index, an egroup's footer, a segment's frames, and at last the
//! DATA records.

use super::Pool;
use super::copying::{Desk, Pace};
use crate::error::{Error, Result};
use crate::metadata::io::TableIo;
use crate::oplog::births::segment_births;
use holdfast_device::AlignedBuffer;
use holdfast_format::EgroupId;
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{EgroupRecord, Footer};
use holdfast_format::index::Index;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::{SlotAddress, TableDesc};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a page that a DATA record names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    pub offset: u16,
    pub length: u16,
    pub checksum: u64,
}

impl Named {
    pub fn matches(&self, page: &[u8]) -> bool {
        let (from, length) = (self.offset as usize, self.length as usize);
        page.get(from..from + length).is_some_and(|part| checksum(part) == self.checksum)
    }
}

/// What DATA records say of an egroup's pages. Slow: walks all trees.
pub type NamesOf<'a> = &'a (dyn Fn(EgroupId) -> Result<BTreeMap<u16, Vec<Named>>> + Sync);

/// What is to be written into a fresh slot: the first bytes of a worker's desk, and this.
pub(super) struct Content {
    /// From the start of the slot.
    pub length: usize,
    /// At the very end of the slot.
    pub footer: AlignedBuffer,
    /// Live pages that no copy has right: copied as they are.
    pub bad_pages: Vec<u16>,
}

impl Content {
    fn whole(length: usize, footer: &[u8]) -> Self {
        Self { length, footer: AlignedBuffer::gather(&[footer]), bad_pages: Vec::new() }
    }

    pub fn bytes(&self) -> u64 {
        (self.length + self.footer.len()) as u64
    }
}

/// What one drive holds of an egroup's pages.
struct Image {
    copy: SlotAddress,
    bytes: AlignedBuffer,
    /// Pages that cannot be read.
    unread: BTreeSet<u16>,
}

impl Image {
    fn page(&self, page: u16) -> Option<&[u8]> {
        if self.unread.contains(&page) {
            return None;
        }
        self.bytes.get(page as usize * BLOCK_BYTES..(page as usize + 1) * BLOCK_BYTES)
    }
}

/// The checksums say what every page is that may be asked for.
fn names_all(record: &EgroupRecord, sums: &BTreeMap<u16, u64>, bytes: &[u8]) -> bool {
    let mut pages = bytes.chunks_exact(BLOCK_BYTES).enumerate().map(|(page, bytes)| (page as u16, bytes));
    pages.all(|(page, bytes)| match sums.get(&page) {
        Some(sum) => checksum(bytes) == *sum,
        None => !record.live.contains(page),
    })
}

impl Pool {
    /// Copies on drives that are in use.
    pub(super) fn readable(&self, copies: &[SlotAddress]) -> Vec<SlotAddress> {
        copies.iter().copied().filter(|copy| self.disks[copy.drive as usize].is_active()).collect()
    }

    /// A table as its description and index say it is, from whichever copies are right; mends the others.
    pub(super) fn table_content(&self, desc: &TableDesc, desk: &mut Desk<'_>) -> Result<Content> {
        let length = (desc.bytes as usize).next_multiple_of(BLOCK_BYTES);
        let outside = || Error::corrupt(format!("table {}: it leaves its slot", desc.id));
        let bytes = desk.bytes.get_mut(..length).ok_or_else(outside)?;
        // What no checksum covers (padding) is taken as it is; what one does is read again below.
        let mut copies = self.turn(&self.readable(&desc.copies)).into_iter();
        if !copies.any(|copy| self.read_paced((copy, 0), bytes, desk.pace).is_ok()) {
            bytes.fill(0);
        }
        let from = desc.index_offset as usize;
        let index = bytes.get_mut(from..from + desc.index_bytes as usize);
        let index = index.ok_or_else(|| Error::corrupt(format!("table {}: place of its index", desc.id)))?;
        if checksum(index) != desc.index_checksum {
            let verify = |bytes: &[u8]| checksum(bytes) == desc.index_checksum;
            self.read_table(desc, desc.index_offset, index, &verify)?;
        }
        let decoded = Index::decode(index.to_vec());
        let index = decoded.map_err(|error| Error::decode(&format!("index of table {}", desc.id), error))?;
        for place in (0..index.blocks()).map(|block| index.place(block)) {
            let from = place.offset as usize;
            let block = bytes.get_mut(from..from + place.length as usize);
            let block =
                block.ok_or_else(|| Error::corrupt(format!("table {}: place of a block", desc.id)))?;
            if checksum(block) != place.checksum {
                self.read_table(desc, place.offset, block, &|bytes| checksum(bytes) == place.checksum)?;
            }
        }
        Ok(Content::whole(length, &[]))
    }

    /// As [`Pool::image_of`] for a drive that is not in use.
    fn image_of_unused(&self, copy: SlotAddress, pages: u16) -> Image {
        let page = |at: u16, into: &mut [u8]| {
            let found = self.read_unused(copy, at as u32 * BLOCK_BYTES as u32, BLOCK_BYTES);
            found.map(|bytes| into.copy_from_slice(&bytes)).is_some()
        };
        by_page(copy, pages, &page)
    }

    fn image_of(&self, copy: SlotAddress, pages: u16, pace: &dyn Pace) -> Image {
        let mut bytes = AlignedBuffer::zeroed(pages as usize * BLOCK_BYTES);
        if self.read_paced((copy, 0), &mut bytes, pace).is_ok() {
            return Image { copy, bytes, unread: BTreeSet::new() };
        }
        by_page(copy, pages, &|at, into| self.read_copy(copy, at as u32 * BLOCK_BYTES as u32, into).is_ok())
    }

    /// Checksums of the pages that the egroup itself names, by its footer, or by the frames among them; and the footer.
    fn own_sums<'a>(
        &self,
        id: EgroupId,
        record: &EgroupRecord,
        images: impl IntoIterator<Item = &'a [u8]>,
    ) -> (BTreeMap<u16, u64>, Vec<u8>) {
        if !self.is_segment(record) {
            let Ok(footer) = self.footer_of(id, record) else { return Default::default() };
            let sums = footer.births.iter().enumerate().map(|(page, (_, sum))| (page as u16, *sum)).collect();
            return (sums, Footer::encode(&footer));
        }
        let births = images.into_iter().flat_map(|bytes| segment_births(id, record.incarnation, bytes));
        (births.map(|birth| (birth.page, birth.checksum)).collect(), Vec::new())
    }

    /// A sealed egroup, put together on the desk. One copy is enough where the egroup's own checksums cover what is alive in
    /// it and accept it all: whether the others are right is the scrub's to find out.
    pub(super) fn egroup_content(
        &self,
        id: EgroupId,
        record: &EgroupRecord,
        names: NamesOf<'_>,
        desk: &mut Desk<'_>,
    ) -> Result<Content> {
        let readable = self.turn(&self.readable(&record.copies));
        let length = record.pages as usize * BLOCK_BYTES;
        let outside = || Error::corrupt(format!("egroup {id}: it leaves its slot"));
        let whole = desk.bytes.get_mut(..length).ok_or_else(outside)?;
        if let Some(copy) = readable.first()
            && self.read_paced((*copy, 0), whole, desk.pace).is_ok()
        {
            let (sums, footer) = self.own_sums(id, record, [&*whole]);
            if names_all(record, &sums, whole) {
                return Ok(Content::whole(length, &footer));
            }
        }
        let entitled = !readable.is_empty();
        let images: Vec<Image> = match entitled {
            true => readable.into_iter().map(|copy| self.image_of(copy, record.pages, desk.pace)).collect(),
            false => record.copies.iter().map(|copy| self.image_of_unused(*copy, record.pages)).collect(),
        };
        self.compared_content((id, record), (&images, entitled), names, whole)
    }

    /// Page by page from a copy that has the page right; mends the copies that have it wrong.
    ///
    /// 1. A page with a checksum of the egroup's own: the copy that matches it.
    /// 2. Any other: what all copies agree on.
    /// 3. Where they differ and the page is alive: the copy that the DATA records accept.
    ///
    /// Without a copy on a drive in use, those on drives that are out or stale are looked through; that they agree says
    /// nothing.
    fn compared_content(
        &self,
        (id, record): (EgroupId, &EgroupRecord),
        (images, entitled): (&[Image], bool),
        names: NamesOf<'_>,
        whole: &mut [u8],
    ) -> Result<Content> {
        let (sums, footer) = self.own_sums(id, record, images.iter().map(|image| &*image.bytes));
        let mut named = None;
        let mut content = Content::whole(whole.len(), &footer);
        for (page, into) in (0..record.pages).zip(whole.chunks_exact_mut(BLOCK_BYTES)) {
            let known = sums.get(&page);
            let agreed = agreed_page(images, page).filter(|_| entitled);
            let live = record.live.contains(page);
            let right = match (known, agreed) {
                (Some(sum), _) => {
                    images.iter().filter_map(|image| image.page(page)).find(|bytes| checksum(bytes) == *sum)
                }
                (None, Some(bytes)) => Some(bytes),
                (None, None) if live => {
                    if named.is_none() {
                        named = Some(names(id)?);
                    }
                    let says = named.as_ref().and_then(|named| named.get(&page));
                    let accepts =
                        |bytes: &&[u8]| says.is_some_and(|says| says.iter().all(|part| part.matches(bytes)));
                    images.iter().filter_map(|image| image.page(page)).find(accepts)
                }
                (None, None) => None,
            };
            match right {
                Some(bytes) => {
                    into.copy_from_slice(bytes);
                    if known.is_some() || live {
                        self.mend_others(images, page, bytes);
                    }
                }
                None => {
                    if live {
                        content.bad_pages.push(page);
                    }
                    let any = images.iter().find_map(|image| image.page(page));
                    into.copy_from_slice(any.unwrap_or(&[0; BLOCK_BYTES]));
                }
            }
        }
        Ok(content)
    }

    fn mend_others(&self, images: &[Image], page: u16, right: &[u8]) {
        for image in images.iter().filter(|image| image.page(page) != Some(right)) {
            self.mend(image.copy, page as u32 * BLOCK_BYTES as u32, right);
        }
    }
}

/// What can be read of a copy, page by page.
fn by_page(copy: SlotAddress, pages: u16, read: &dyn Fn(u16, &mut [u8]) -> bool) -> Image {
    let mut bytes = AlignedBuffer::zeroed(pages as usize * BLOCK_BYTES);
    let places = (0..pages).zip(bytes.chunks_exact_mut(BLOCK_BYTES));
    let unread = places.filter_map(|(page, into)| (!read(page, into)).then_some(page)).collect();
    Image { copy, bytes, unread }
}

/// The page, when every copy can be read and all say the same.
fn agreed_page(images: &[Image], page: u16) -> Option<&[u8]> {
    let first = images.first()?.page(page)?;
    images.iter().all(|image| image.page(page) == Some(first)).then_some(first)
}
