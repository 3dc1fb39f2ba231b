//! What no single row says: rings, indices and phases; the forms of a transmit slot; the page of a queue pair in BAR2;
//! shadow doorbells. Every number comes from the contract, and the places in a slot from the functions that drivers and
//! devices use.

use core::fmt::{self, Write};

use super::picture::{Line, ROW_CHARACTERS};
use crate::admin::{AdminCompletion, Command};
use crate::completion::{ReceiveCompletion, TransmitCompletion};
use crate::descriptor::{
    RECEIVE_STRIDE_BYTES, TRANSMIT_COOKIE_BYTES, TRANSMIT_KEY_BYTES, TRANSMIT_STRIDES_LOG2,
    TransmitDescriptor, inline_offset, inline_room,
};
use crate::doorbell::{DOORBELL_PAGE_BYTES, DOORBELLS, PUSH_WINDOW_BYTES, PUSH_WINDOWS};
use crate::events::Event;
use crate::shadow_doorbells::{EventIndices, SHADOW_ALIGNMENT_LOG2, ShadowDoorbells};

/// Bytes of one row of a slot's picture.
const ROW_BYTES: u32 = 8;
/// Slots of the ring in the example.
const EXAMPLE_SLOTS: u32 = 4;
/// Indices of the example.
const EXAMPLE_INDICES: u32 = 12;
/// Bytes of a store into a push window.
const STORE_BYTES: u32 = 64;

/// The rules of rings.
pub(super) fn rings(out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "\
A ring is an array of slots in host memory; the number of slots is a power of two. The host writes descriptors
and tells the device how far it got: the **producer index**, by a doorbell. The device writes completions into
a ring of its own, and the **phase** in the last word of each says whether it is new. In the ring of events the device
writes alone, and the host tells by a doorbell how far it read: the **consumer index**.

| ring | slot bytes | what a slot holds | base | told by |
|---|---|---|---|---|
| transmit | 32, 64 or 128 | [`TransmitDescriptor`](#transmitdescriptor) and [more](#transmit-slots) | [`TRANSMIT_RING_BASE`](#transmit_ring_base) | [`TRANSMIT_DOORBELL`](#transmit_doorbell) |
| transmit completions | {} | [`TransmitCompletion`](#transmitcompletion) | [`TRANSMIT_COMPLETION_BASE`](#transmit_completion_base) | the phase |
| receive | {RECEIVE_STRIDE_BYTES} | [`ReceiveDescriptor`](#receivedescriptor) | [`RECEIVE_RING_BASE`](#receive_ring_base) | [`RECEIVE_DOORBELL`](#receive_doorbell) |
| receive completions | {} | [`ReceiveCompletion`](#receivecompletion) | [`RECEIVE_COMPLETION_BASE`](#receive_completion_base) | the phase |
| admin commands | {} | [`Command`](#command) | [`ADMIN_COMMAND_BASE`](#admin_command_base) | [`ADMIN_DOORBELL`](#admin_doorbell) |
| admin completions | {} | [`AdminCompletion`](#admincompletion) | [`ADMIN_COMPLETION_BASE`](#admin_completion_base) | the phase |
| events | {} | [`Event`](#event) | [`EVENT_RING_BASE`](#event_ring_base) | the phase; [`EVENT_DOORBELL`](#event_doorbell) |

Indices are free-running counts of 32 bits. With `slots_log2` from the control register:

```text
slot    = index mod 2^slots_log2               where in the ring
phase   = 1 - (index div 2^slots_log2) mod 2   of a completion with this index
pending = (producer - consumer) mod 2^32       0: empty; 2^slots_log2: full
```

A ring of {EXAMPLE_SLOTS} slots, which the host cleared before it turned the queue on:

```text",
        TransmitCompletion::BYTES,
        ReceiveCompletion::BYTES,
        Command::BYTES,
        AdminCompletion::BYTES,
        Event::BYTES,
    )?;
    example_row(out, "index", |index| index)?;
    example_row(out, "slot", |index| index % EXAMPLE_SLOTS)?;
    example_row(out, "phase", |index| 1 - index / EXAMPLE_SLOTS % 2)?;
    writeln!(
        out,
        "
slot             0     1     2     3
              +-----+-----+-----+-----+
index         |     |  5  |  6  |  7  |    producer 8, consumer 5: three are with
              +-----+-----+-----+-----+    the device; slot 0 is free for index 8
                 ^     ^
        producer |     | consumer
```

1. Write the slots, then the doorbell: a doorbell is a posted write, and arrives behind the memory writes before it.
2. A doorbell carries the index *behind* the last slot written, not a slot number and not a count of new slots.
3. Read the last word of a completion with acquire order; if its phase is the expected one, the words before it are
   there too. If not, it is an old one, or still zeros.
4. The phase turns over each time the completion index passes the end of the ring, which is not when the descriptor
   index does: one transmit completion retires many descriptors.
5. A slot of the ring of events is the device's again when the consumer index is past it. No completion waits for the
   host: a completion ring has as many slots as its ring, so that it cannot be full.
"
    )
}

fn example_row(out: &mut impl Write, name: &str, value: impl Fn(u32) -> u32) -> fmt::Result {
    write!(out, "{name:<12}")?;
    for index in 0..EXAMPLE_INDICES {
        write!(out, "{:>5}", value(index))?;
    }
    writeln!(out)
}

/// A form of a transmit slot that the manual draws.
struct SlotForm {
    stride_log2: u8,
    with_key: bool,
    with_cookie: bool,
}

const SLOT_FORMS: [SlotForm; 5] = [
    SlotForm { stride_log2: 5, with_key: false, with_cookie: false },
    SlotForm { stride_log2: 6, with_key: false, with_cookie: false },
    SlotForm { stride_log2: 6, with_key: true, with_cookie: false },
    SlotForm { stride_log2: 7, with_key: false, with_cookie: false },
    SlotForm { stride_log2: 7, with_key: true, with_cookie: true },
];

/// The forms of a transmit slot.
pub(super) fn slots(out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "\
Every slot begins with the four words of [`TransmitDescriptor`](#transmitdescriptor). What a wider slot has behind
them holds, in this order and without gaps: the key if the security is `psp_key`, the cookie if `psp_cookie` is set,
then inline data, of which `inline_bytes` are the first bytes of the frame. A frame is its inline bytes, then the
`length` bytes at `address`, then those of the descriptors that continue it. Which strides there are, and whether
inline data may be used, says [`DESCRIPTOR_CAPABILITY`](#descriptor_capability); the stride of a ring is set in
[`QUEUE_CONTROL`](#queue_control).

| stride | key | cookie | inline data from byte | inline bytes, most |
|---|---|---|---|---|"
    )?;
    for stride_log2 in TRANSMIT_STRIDES_LOG2 {
        for (with_key, with_cookie) in [(false, false), (true, false), (true, true)] {
            let stride = 1 << stride_log2;
            let (key, cookie) = (yes(with_key), yes(with_cookie));
            match inline_room(stride, with_key, with_cookie) {
                Some(0) => writeln!(out, "| {stride} | {key} | {cookie} | none | 0 |")?,
                Some(room) => {
                    let offset = inline_offset(with_key, with_cookie);
                    writeln!(out, "| {stride} | {key} | {cookie} | {offset} | {room} |")?;
                }
                None => writeln!(out, "| {stride} | {key} | {cookie} | does not fit | - |")?,
            }
        }
    }
    writeln!(out, "\nOne row is one word of {ROW_BYTES} bytes, byte offsets on the left.\n")?;
    for form in &SLOT_FORMS {
        slot(out, form)?;
    }
    Ok(())
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn slot(out: &mut impl Write, form: &SlotForm) -> fmt::Result {
    let SlotForm { stride_log2, with_key, with_cookie } = *form;
    let stride = 1 << stride_log2;
    let Some(room) = inline_room(stride, with_key, with_cookie) else { return Ok(()) };
    let key = if with_key { ", key" } else { "" };
    let cookie = if with_cookie { ", cookie" } else { "" };
    let inline = if room > 0 { ", inline data" } else { "" };
    writeln!(out, "Stride {stride}{key}{cookie}{inline}:\n\n```text\n     {}", Line::rule())?;
    let mut byte = 0;
    for word in TransmitDescriptor::ROW.words {
        region(out, &mut byte, ROW_BYTES, word.name, b' ')?;
    }
    if with_key {
        region(out, &mut byte, TRANSMIT_KEY_BYTES, "key", b'#')?;
    }
    if with_cookie {
        region(out, &mut byte, TRANSMIT_COOKIE_BYTES, "cookie", b' ')?;
    }
    region(out, &mut byte, room, "inline data", b' ')?;
    writeln!(out, "```\n")
}

/// A region of a slot, as many rows as it has words.
fn region(out: &mut impl Write, byte: &mut u32, bytes: u32, name: &str, fill: u8) -> fmt::Result {
    let rows = bytes / ROW_BYTES;
    if rows == 0 {
        return Ok(());
    }
    for row in 0..rows {
        let mut line = Line::edges(b'|');
        line.fill(1, ROW_CHARACTERS - 1, fill);
        if row == (rows - 1) / 2 {
            line.centre(1, ROW_CHARACTERS - 1, name, "");
        }
        writeln!(out, "{byte:>4} {line}")?;
        *byte += ROW_BYTES;
    }
    writeln!(out, "     {}", Line::rule())
}

/// The page of a queue pair in BAR2, and how a push is made.
pub(super) fn pushes(out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "\
The page of queue pair `n` begins at `n` × {DOORBELL_PAGE_BYTES:#x} in BAR2. The windows are there if
[`DESCRIPTOR_CAPABILITY`](#descriptor_capability) has `push_windows`.

```text
     {}",
        Line::rule()
    )?;
    let mut end = DOORBELLS.offset;
    for register in DOORBELLS.registers {
        place(out, &mut end, register.offset, u32::from(register.width_bits / 8), register.name, "")?;
    }
    for (number, window) in PUSH_WINDOWS.into_iter().enumerate() {
        place(
            out,
            &mut end,
            window,
            PUSH_WINDOW_BYTES,
            "push window",
            ["0", "1"].get(number).unwrap_or(&""),
        )?;
    }
    place(out, &mut end, DOORBELL_PAGE_BYTES, 0, "", "")?;
    writeln!(
        out,
        "```

A push is a doorbell that brings its descriptor along:

1. Write the slot into the ring, as without a push. Memory stays the truth.
2. Write the same bytes into a window, with the low half of the producer index behind this descriptor in `producer`
   of the extent word, in stores of {STORE_BYTES} bytes from the window's beginning on. The next push takes the other window.
3. The write of the slot's last word ends the push. No doorbell follows.

| stride | stores of {STORE_BYTES} bytes | the push ends with the word at byte |
|---|---|---|"
    )?;
    for stride_log2 in TRANSMIT_STRIDES_LOG2 {
        let stride = 1_u32 << stride_log2;
        writeln!(out, "| {stride} | {} | {} |", stride.div_ceil(STORE_BYTES), stride - ROW_BYTES)?;
    }
    writeln!(
        out,
        "
The device uses the pushed bytes if all of the slot has arrived since the push began and the descriptor is the next
in line. Otherwise the push is a doorbell with that producer index, or nothing if the extent word is missing: a
driver whose stores may be lost or torn rings the doorbell too.
"
    )
}

/// What host and device do with shadow doorbells, and in what order.
pub(super) fn shadows(out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "\
A device behind which a register write is dear, because another process serves it, may take doorbells from host memory
([`DESCRIPTOR_CAPABILITY`](#descriptor_capability) has `shadow_doorbells`). The host sets up two arrays, each aligned to
{} bytes and with an element of {} bytes for queue pair 0, 1, 2 and so on: [`ShadowDoorbells`](#shadowdoorbells), the counts
that it would write to the doorbells, and [`EventIndices`](#eventindices), by which the device says when it wants the
doorbell itself. It turns them on in [`SHADOW_DOORBELL_CONTROL`](#shadow_doorbell_control), and then queue pairs. Both
elements of a pair are zeroed before it is turned on.

```text
host, to ring                              device, to sleep
1. write descriptors                       1. event indices = the counts it knows
2. store the count (release)               2. full fence
3. full fence                              3. a count ahead of what it knows?
4. load the event index                       then stay awake
5. new - event - 1 < new - old (mod 2^32)?
   then write the doorbell, same count
```

Either the device sees the count in its last look, or the host sees the event index that the count passes. A device that
is awake has its event indices behind the counts, where none passes them, and looks again and again. The rule is that of
NVMe (NVM Express 1.3, 5.7 and B.5).

- A count that the device finds has the effect of a write of its doorbell, and the same faults.
- A count behind the one that the device knows, in memory or in a doorbell, announces nothing: a doorbell may arrive when
  later counts were found. Behind is by less than 2^31.
- The count of [`INTERRUPT_ARM`](#interrupt_arm) is how often the host has armed. An arming, found in memory or told by the
  doorbell of such a pair, holds for completions since the device's last look that found none, too: if there was one, the
  interrupt is sent at once. So a host that has armed looks at its rings behind the fence, and sleeps, without a register
  read between. An interrupt for completions that it has seen is possible.
- A pair that has shadow doorbells is not pushed to.
- An element that the device cannot reach stops its queue pair (`ring_dma_fault`).
",
        1 << SHADOW_ALIGNMENT_LOG2,
        ShadowDoorbells::BYTES.max(EventIndices::BYTES),
    )
}

/// A range of the page of a queue pair, and what lies unused before it.
fn place(
    out: &mut impl Write,
    end: &mut u32,
    offset: u32,
    bytes: u32,
    name: &str,
    number: &str,
) -> fmt::Result {
    if offset > *end {
        let mut line = Line::edges(b'|');
        line.fill(1, ROW_CHARACTERS - 1, b'.');
        writeln!(out, "{:#05x}{line}\n     {}", *end, Line::rule())?;
    }
    if bytes > 0 {
        let mut line = Line::edges(b'|');
        line.centre(1, ROW_CHARACTERS - 1, name, "");
        let middle = ROW_CHARACTERS / 2 + name.len() / 2 + 2;
        for (column, character) in (middle..).zip(number.bytes()) {
            line.put(column, character);
        }
        writeln!(out, "{offset:#05x}{line} {bytes} bytes\n     {}", Line::rule())?;
    }
    *end = offset + bytes;
    Ok(())
}
