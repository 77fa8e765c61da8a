//! Processes that the kernel kills for want of memory: noticed by the group's event where there is one, and by a look at
//! its counter a little later, because some kernels tell before they count.
#![forbid(unsafe_code)]

use super::adopt;
use super::event::{Index, InstanceEvent};
use super::run::Supervisor;
use crate::base::units::Millis;

/// Between two looks whether a shortage of memory has cost a process, and how many looks.
const OOM_LOOK: Millis = Millis(20);
const OOM_LOOKS: u8 = 50;

impl Supervisor<'_> {
    /// The kernel says that the service is short of memory: whether that has cost a process it shows a little later.
    pub(super) fn memory_short(&mut self, index: Index) {
        let next = self.now.plus(OOM_LOOK);
        if !self.memory_kills(index)
            && let Some(live) = self.slots.get_mut(usize::from(index)).and_then(|slot| slot.live.as_mut())
        {
            (live.oom_look, live.oom_looks) = (Some(next), OOM_LOOKS);
        }
    }

    /// Takes the looks that are due: for kills, and for inits of whose end the kernel does not tell.
    pub(super) fn look_for_memory_kills(&mut self) {
        for index in 0..self.slots.len() {
            let Some(live) = self.slots.get_mut(index).and_then(|slot| slot.live.as_mut()) else { continue };
            if live.gone_look.take_if(|look| *look <= self.now).is_some() {
                if live.is_gone() {
                    self.init_ended(index as Index);
                    continue;
                }
                live.gone_look = Some(self.now.plus(adopt::GONE_LOOK)).filter(|_| live.looks_needed());
            }
            if live.oom_look.is_none_or(|look| look > self.now) {
                continue;
            }
            live.oom_looks = live.oom_looks.saturating_sub(1);
            live.oom_look = (live.oom_looks > 0).then(|| self.now.plus(OOM_LOOK));
            self.memory_kills(index as Index);
        }
    }

    /// Whether the kernel has killed a process of the service for want of memory since the last look; tells the core.
    pub(super) fn memory_kills(&mut self, index: Index) -> bool {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return false };
        let (Some(group), Some(live)) = (&slot.group, &mut slot.live) else { return false };
        let kills = group.oom_kills();
        if kills <= live.oom_before {
            return false;
        }
        (live.oom_before, live.oom_look) = (kills, None);
        let number = live.number;
        self.happened(index, number, InstanceEvent::OutOfMemory);
        true
    }
}
