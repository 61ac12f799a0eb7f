//! The right content of a thing that lies in slots, put together from the copies that are left. What is right is
//! said by what names it: a table's description and index, an egroup's footer, a segment's frames, and at last the
//! DATA records.

use super::Pool;
use crate::error::{Error, Result};
use crate::metadata::io::TableIo;
use crate::oplog::births::segment_births;
use holdfast_format::EgroupId;
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{EgroupRecord, Footer};
use holdfast_format::index::Index;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::{SlotAddress, TableDesc};
use std::collections::BTreeMap;

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

/// What is to be written into a fresh slot.
pub(super) struct Content {
    /// From the start of the slot.
    pub bytes: Vec<u8>,
    /// At the very end of the slot.
    pub footer: Vec<u8>,
    /// Live pages that no copy has right: copied as they are.
    pub bad_pages: Vec<u16>,
}

/// What one drive holds of an egroup's pages; `None`: that page cannot be read.
struct Image {
    copy: SlotAddress,
    pages: Vec<Option<Vec<u8>>>,
}

impl Image {
    fn page(&self, page: u16) -> Option<&[u8]> {
        self.pages.get(page as usize)?.as_deref()
    }
}

impl Pool {
    /// Copies on drives that are in use.
    pub(super) fn readable(&self, copies: &[SlotAddress]) -> Vec<SlotAddress> {
        copies.iter().copied().filter(|copy| self.disks[copy.drive as usize].is_active()).collect()
    }

    /// A table as its description and index say it is, from whichever copies are right; mends the others.
    pub(super) fn table_content(&self, desc: &TableDesc) -> Result<Content> {
        let mut bytes = vec![0; (desc.bytes as usize).next_multiple_of(BLOCK_BYTES)];
        let copies = self.readable(&desc.copies);
        // What no checksum covers (padding) is taken as it is; what one does is read again below.
        for copy in &copies {
            if self.read_copy(*copy, 0, &mut bytes).is_ok() {
                break;
            }
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
        Ok(Content { bytes, footer: Vec::new(), bad_pages: Vec::new() })
    }

    /// As [`Pool::image_of`] for a drive that is not in use.
    fn image_of_unused(&self, copy: SlotAddress, pages: u16) -> Image {
        let page = |at: u16| self.read_unused(copy, at as u32 * BLOCK_BYTES as u32, BLOCK_BYTES);
        Image { copy, pages: (0..pages).map(page).collect() }
    }

    fn image_of(&self, copy: SlotAddress, pages: u16) -> Image {
        let mut whole = vec![0; pages as usize * BLOCK_BYTES];
        if self.read_copy(copy, 0, &mut whole).is_ok() {
            let pages = whole.chunks_exact(BLOCK_BYTES).map(|page| Some(page.to_vec())).collect();
            return Image { copy, pages };
        }
        let page = |at: u16| {
            let mut page = vec![0; BLOCK_BYTES];
            self.read_copy(copy, at as u32 * BLOCK_BYTES as u32, &mut page).ok().map(|()| page)
        };
        Image { copy, pages: (0..pages).map(page).collect() }
    }

    /// Checksums of the pages that the egroup itself names: by its footer, or by the frames among them.
    fn own_sums(
        &self,
        id: EgroupId,
        record: &EgroupRecord,
        images: &[Image],
    ) -> (BTreeMap<u16, u64>, Vec<u8>) {
        if !self.is_segment(record) {
            let Ok(footer) = self.footer_of(id, record) else { return Default::default() };
            let sums = footer.births.iter().enumerate().map(|(page, (_, sum))| (page as u16, *sum)).collect();
            return (sums, Footer::encode(&footer));
        }
        let mut sums = BTreeMap::new();
        for image in images {
            let page = |page: &Option<Vec<u8>>| page.clone().unwrap_or_else(|| vec![0; BLOCK_BYTES]);
            let bytes: Vec<u8> = image.pages.iter().flat_map(page).collect();
            let births = segment_births(id, record.incarnation, &bytes);
            sums.extend(births.into_iter().map(|birth| (birth.page, birth.checksum)));
        }
        (sums, Vec::new())
    }

    /// A sealed egroup, page by page from a copy that has the page right; mends the copies that have it wrong.
    ///
    /// 1. A page with a checksum of the egroup's own: the copy that matches it.
    /// 2. Any other: what all copies agree on.
    /// 3. Where they differ and the page is alive: the copy that the DATA records accept.
    ///
    /// Without a copy on a drive in use, those on drives that are out or stale are looked through; that they agree says
    /// nothing.
    pub(super) fn egroup_content(
        &self,
        id: EgroupId,
        record: &EgroupRecord,
        names: NamesOf<'_>,
    ) -> Result<Content> {
        let readable = self.readable(&record.copies);
        let entitled = !readable.is_empty();
        let images: Vec<Image> = match entitled {
            true => readable.into_iter().map(|copy| self.image_of(copy, record.pages)).collect(),
            false => record.copies.iter().map(|copy| self.image_of_unused(*copy, record.pages)).collect(),
        };
        let (sums, footer) = self.own_sums(id, record, &images);
        let mut named = None;
        let mut content = Content { bytes: Vec::new(), footer, bad_pages: Vec::new() };
        for page in 0..record.pages {
            let known = sums.get(&page);
            let agreed = agreed_page(&images, page).filter(|_| entitled);
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
                    content.bytes.extend_from_slice(bytes);
                    if known.is_some() || live {
                        self.mend_others(&images, page, bytes);
                    }
                }
                None => {
                    if live {
                        content.bad_pages.push(page);
                    }
                    let any = images.iter().find_map(|image| image.page(page));
                    content.bytes.extend_from_slice(any.unwrap_or(&[0; BLOCK_BYTES]));
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

/// The page, when every copy can be read and all say the same.
fn agreed_page(images: &[Image], page: u16) -> Option<&[u8]> {
    let first = images.first()?.page(page)?;
    images.iter().all(|image| image.page(page) == Some(first)).then_some(first)
}
