//! What goes into the trace of one run: enough to tell two runs apart, and words for those who read.

use super::lane::Happening;
use super::trace::Trace;
use crate::units::Instant;
use crate::{desk, shard};

pub(super) fn note_shard_event(trace: &mut Trace, now: Instant, shard: u8, event: &shard::Event<'_>) {
    let value = match event {
        shard::Event::Completed(done) => {
            let result = done.result.map_err(|errno| errno.0);
            (done.slot.0, done.generation.0, done.kind as u8, Some(result), done.data.first().copied(), done.more)
        }
        shard::Event::OpenFailed { slot, errno } => (slot.0, 0, 10, Some(Err(errno.0)), None, false),
        shard::Event::Resolved { .. } => (0, 0, 11, None, None, false),
        shard::Event::HostSampled(sample) => (sample.drops as u32, 0, 12, None, None, sample.table_full),
        shard::Event::Command(command) => (command.monitor.index(), 0, 13, None, None, false),
        shard::Event::Read { .. } => (0, 0, 14, None, None, false),
        shard::Event::HalfOpen(can) => (0, 0, 20, None, None, *can),
        shard::Event::DeskFull(full) => (0, 0, 15, None, None, *full),
        shard::Event::Drain => (0, 0, 16, None, None, false),
        shard::Event::Returned { slot, generation, .. } => (slot.0, generation.0, 17, None, None, false),
        shard::Event::Begun { slot, generation, .. } => (slot.0, generation.0, 19, None, None, false),
        shard::Event::Echoed { slot, generation, sequence, .. } => {
            (slot.0, generation.0, 18, Some(Ok(u32::from(*sequence))), None, false)
        }
        shard::Event::Reloaded(reload) => (reload.changes.len() as u32, 0, 21, None, None, false),
        shard::Event::Pushed { index, ok, .. } => (*index, 0, 19, None, None, *ok),
    };
    trace.note(now, (3_u8, shard, value), || match event {
        shard::Event::Completed(done) => {
            let more = if done.more { ", more" } else { "" };
            let text = String::from_utf8_lossy(&done.data[..done.data.len().min(40)]).into_owned();
            format!(
                "shard {shard} ◀ slot {} gen {} {:?} {:?}{more} {text:?}",
                done.slot.0, done.generation.0, done.kind, done.result
            )
        }
        other => format!("shard {shard} ◀ {other:?}"),
    });
}

pub(super) fn note_shard_effect(trace: &mut Trace, now: Instant, shard: u8, effect: &shard::Effect) {
    let value = match effect {
        shard::Effect::Open { slot, family } => (slot.0, 1, *family as u8),
        shard::Effect::Close { slot } => (slot.0, 2, 0),
        shard::Effect::Submit { slot, generation, op, .. } => (slot.0, 3 + generation.0, op.kind() as u8),
        shard::Effect::Resolve { .. } => (0, 0, 10),
        shard::Effect::SampleHost => (0, 0, 11),
        shard::Effect::Transition(transition) => {
            (transition.monitor.index(), transition.kind as u32, transition.outcome.code.index() as u8)
        }
        shard::Effect::Report { .. } => (0, 0, 12),
        shard::Effect::Errand { slot, generation, .. } => (slot.0, 3 + generation.0, 13),
        shard::Effect::Recall { slot, generation } => (slot.0, 3 + generation.0, 14),
        shard::Effect::Ping { slot, generation, .. } => (slot.0, 3 + generation.0, 15),
        shard::Effect::Syn { slot, generation, .. } => (slot.0, 3 + generation.0, 16),
    };
    trace.note(now, (4_u8, shard, value), || format!("shard {shard} ▶ {effect:?}"));
}

pub(super) fn note_desk_event(trace: &mut Trace, now: Instant, event: &desk::Event) {
    let value = match event {
        desk::Event::Transition(transition) => (0_u8, transition.monitor.index().into()),
        desk::Event::Durable(sequence) => (1, *sequence),
        desk::Event::Delivered { notice, delivered } => (2 + delivered.result as u8, notice.0),
        desk::Event::Disable(monitor) => (6, monitor.index().into()),
        desk::Event::Enable(monitor) => (7, monitor.index().into()),
        desk::Event::Wall { shows, .. } => (8, shows.as_micros().cast_unsigned()),
        desk::Event::Drain => (9, 0),
        desk::Event::Read { token, .. } => (10, *token),
        desk::Event::Outbox { token, .. } => (11, *token),
        desk::Event::Test { token, .. } => (12, *token),
        desk::Event::Reloaded { changes, .. } => (13, changes.len() as u64),
    };
    trace.note(now, (5_u8, value), || format!("desk    ◀ {event:?}"));
}

pub(super) fn note_happening(trace: &mut Trace, now: Instant, happening: &Happening) {
    let value = match happening {
        Happening::Arrived { id, .. } => (0_u8, id.0),
        Happening::Ended { id, delivered, .. } => (1 + delivered.result as u8, id.0),
    };
    trace.note(now, (1_u8, value), || match happening {
        Happening::Arrived { id, notice } => {
            let key = &notice.key;
            format!(
                "lane    {id:?} {:?} {} of {} ARRIVES at {}",
                key.raise, key.n, notice.monitor_name, key.destination.name
            )
        }
        Happening::Ended { id, notice, delivered } => {
            let key = &notice.key;
            format!("lane    {id:?} {:?} {} of {}: {delivered:?}", key.raise, key.n, notice.monitor_name)
        }
    });
}

pub(super) fn note_desk_effect(trace: &mut Trace, now: Instant, effect: &desk::Effect) {
    let value = match effect {
        desk::Effect::Commit(batch) => (0_u8, batch.sequence, batch.records.len() as u128),
        desk::Effect::Deliver { id, notice } => (1 + notice.key.raise as u8, id.0, notice.key.episode.0),
        desk::Effect::Command(command) => (10, command.monitor.index().into(), 0),
        desk::Effect::Story(story) => (11, story.text.len() as u64, 0),
        desk::Effect::Report { token, .. } => (12, *token, 0),
    };
    trace.note(now, (6_u8, value), || match effect {
        desk::Effect::Deliver { id, notice } => {
            format!(
                "desk    ▶ Deliver {id:?} {:?} {} to {}",
                notice.key.raise, notice.summary, notice.key.destination.name
            )
        }
        desk::Effect::Commit(batch) => {
            let records: Vec<String> = batch.records.iter().map(record_in_words).collect();
            format!("desk    ▶ Commit {}: {}", batch.sequence, records.join(", "))
        }
        other => format!("desk    ▶ {other:?}"),
    });
}

fn record_in_words(record: &desk::protocol::Record) -> String {
    match record {
        desk::protocol::Record::NoticeQueued { id, notice } => {
            let key = &notice.key;
            format!(
                "NoticeQueued {} {:?} {} of {} to {}",
                id.0, key.raise, key.n, notice.monitor_name, key.destination.name
            )
        }
        desk::protocol::Record::Episode(record) => {
            let told: Vec<&str> = record.told.iter().map(|told| &*told.destination.name).collect();
            format!("Episode {} of {:?}: {:?}, told {told:?}", record.id, record.monitor, record.state)
        }
        other => format!("{other:?}"),
    }
}
