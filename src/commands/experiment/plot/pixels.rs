//! A drawing surface of pixels, with a font of its own: a bare machine has none. Written as PNG.

use std::convert::Infallible;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

/// The font's only height.
pub(super) const TEXT_HEIGHT: i32 = 16;
const HEIGHT: RasterHeight = RasterHeight::Size16;
const WEIGHT: FontWeight = FontWeight::Regular;
const CHANNELS: usize = 3;

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// Three bytes a pixel, row by row.
pub(super) struct Pixels<'a> {
    size: (u32, u32),
    rgb: &'a mut [u8],
}

/// What `draw` draws on a surface of this size, as a PNG file.
pub(super) fn png<E: From<png::EncodingError>>(
    size: (u32, u32),
    draw: impl FnOnce(Pixels) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut rgb = vec![0; size.0 as usize * size.1 as usize * CHANNELS];
    draw(Pixels { size, rgb: &mut rgb })?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(file)
}

impl Pixels<'_> {
    fn blend(&mut self, (x, y): BackendCoord, colour: BackendColor, cover: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x >= self.size.0 || y >= self.size.1 {
            return;
        }
        let start = (y as usize * self.size.0 as usize + x as usize) * CHANNELS;
        let Some(pixel) = self.rgb.get_mut(start..start + CHANNELS) else { return };
        let alpha = (colour.alpha * cover).clamp(0.0, 1.0);
        let (red, green, blue) = colour.rgb;
        for (channel, wanted) in pixel.iter_mut().zip([red, green, blue]) {
            *channel = (f64::from(*channel) * (1.0 - alpha) + f64::from(wanted) * alpha).round() as u8;
        }
    }

    /// Each pixel is covered by how near its middle is to the segment. `cover` has what the path covers so far, so that
    /// joints are not drawn twice.
    fn cover_segment(&self, cover: &mut [f64], from: BackendCoord, to: BackendCoord, width: f64) {
        let reach = width / 2.0 + 0.5;
        let edge = reach.ceil() as i32;
        let (left, right) = (from.0.min(to.0) - edge, from.0.max(to.0) + edge);
        let (top, bottom) = (from.1.min(to.1) - edge, from.1.max(to.1) + edge);
        let (along_x, along_y) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let length = along_x * along_x + along_y * along_y;
        for y in top.max(0)..=bottom.min(self.size.1 as i32 - 1) {
            for x in left.max(0)..=right.min(self.size.0 as i32 - 1) {
                let (dx, dy) = (f64::from(x - from.0), f64::from(y - from.1));
                let at =
                    if length > 0.0 { ((dx * along_x + dy * along_y) / length).clamp(0.0, 1.0) } else { 0.0 };
                let distance = (dx - at * along_x).hypot(dy - at * along_y);
                let index = y as usize * self.size.0 as usize + x as usize;
                if let Some(cover) = cover.get_mut(index) {
                    *cover = cover.max((reach - distance).clamp(0.0, 1.0));
                }
            }
        }
    }
}

impl DrawingBackend for Pixels<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, colour: BackendColor) -> Drawn {
        self.blend(point, colour, 1.0);
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        let points: Vec<BackendCoord> = path.into_iter().collect();
        let mut cover = vec![0.0; self.size.0 as usize * self.size.1 as usize];
        for (from, to) in points.iter().zip(points.iter().skip(1)) {
            self.cover_segment(&mut cover, *from, *to, f64::from(style.stroke_width()));
        }
        for (index, cover) in cover.into_iter().enumerate().filter(|(_, cover)| *cover > 0.0) {
            let (x, y) = (index as i32 % self.size.0 as i32, index as i32 / self.size.0 as i32);
            self.blend((x, y), style.color(), cover);
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, position: BackendCoord) -> Drawn {
        let (width, height) = self.estimate_text_size(text, style)?;
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -(width as i32) / 2,
            HPos::Right => -(width as i32),
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -(height as i32) / 2,
            VPos::Bottom => -(height as i32),
        };
        let turn = style.transform();
        let advance = get_raster_width(WEIGHT, HEIGHT) as i32;
        for (column, letter) in (0..).zip(text.chars()) {
            let Some(glyph) = get_raster(letter, WEIGHT, HEIGHT).or_else(|| get_raster('?', WEIGHT, HEIGHT))
            else {
                continue;
            };
            for (y, row) in (0..).zip(glyph.rows()) {
                for (x, cover) in (0..).zip(row) {
                    let (x, y) = turn.transform(left + column * advance + x, top + y);
                    self.blend((position.0 + x, position.1 + y), style.color(), f64::from(*cover) / 255.0);
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let advance = get_raster_width(WEIGHT, HEIGHT) as u32;
        Ok((text.chars().count() as u32 * advance, TEXT_HEIGHT as u32))
    }
}
