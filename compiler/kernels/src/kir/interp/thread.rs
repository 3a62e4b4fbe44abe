//! One thread: its call stack, run up to what it does together with others.

use super::access::Access;
use super::async_copy::Copies;
use super::code::{Code, Compiled};
use super::error::{Addr, Fault};
use super::meet::Stop;
use super::memory::{Memory, Place};
use super::signal;
use super::step::Step;
use super::wgmma::UnderWay;

struct Frame {
    function: usize,
    next: usize,
    regs: Vec<u64>,
    stack: Vec<Addr>,
}

/// A thread's state.
pub(super) struct Thread {
    frames: Vec<Frame>,
    scratch: Vec<u64>,
    copies: Copies,
    /// What it cannot use yet of products.
    pub under_way: UnderWay,
}

impl Thread {
    /// About to enter a function with these parameters.
    pub fn new(program: &Compiled<'_>, function: usize, params: &[u64]) -> Thread {
        let frames = vec![frame(program, function, params)];
        Thread { frames, scratch: Vec::new(), copies: Copies::default(), under_way: UnderWay::default() }
    }

    /// A lane of the function that it runs.
    pub fn place(&self, at: usize) -> u64 {
        self.frames.last().expect("the thread has not returned").regs[at]
    }

    /// The lanes of all values of the function that it runs.
    pub fn places(&mut self) -> &mut [u64] {
        &mut self.frames.last_mut().expect("the thread has not returned").regs
    }

    /// Function and step where it stands.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.frames.last().map(|f| (f.function, f.next))
    }

    /// Runs up to what it does together with others, or the end. After a fault [`Thread::position`] is the
    /// step at fault.
    pub fn run(&mut self, program: &Compiled<'_>, memory: &mut Memory, access: &Access) -> Result<Stop, Fault> {
        while let Some(frame) = self.frames.last_mut() {
            let code = &program.functions[frame.function];
            match &code.steps[frame.next] {
                Step::Meet(_) => {
                    let stop = Stop::At { function: frame.function as u32, step: frame.next as u32 };
                    frame.next += 1;
                    return Ok(stop);
                }
                Step::Async(step) => {
                    self.copies.step(step, &frame.regs, memory, access)?;
                    frame.next += 1;
                }
                Step::Signal(step) => {
                    signal::step(step, &frame.regs, memory, access)?;
                    frame.next += 1;
                }
                Step::Fence => {
                    memory.fence(access);
                    frame.next += 1;
                }
                Step::Tiles(step) => {
                    step.run(&frame.regs, memory, access)?;
                    frame.next += 1;
                }
                Step::Call { function, args } => {
                    let params: Vec<u64> = args.iter().map(|a| frame.regs[*a]).collect();
                    frame.next += 1;
                    self.frames.push(self::frame(program, *function, &params));
                }
                Step::Return => {
                    if self.frames.len() == 1 {
                        self.copies.finish()?;
                        signal::finish(memory, access)?;
                        if !self.under_way.is_empty() {
                            return Err(Fault::Operand("the thread returns with products under way"));
                        }
                    }
                    let Some(frame) = self.frames.pop() else { break };
                    frame.stack.iter().for_each(|addr| memory.free(*addr));
                }
                _ => straight(frame, code, memory, access, &mut self.scratch)?,
            }
        }
        Ok(Stop::Done)
    }
}

fn frame(program: &Compiled<'_>, function: usize, params: &[u64]) -> Frame {
    let mut regs = vec![0; program.functions[function].places];
    regs[..params.len()].copy_from_slice(params);
    Frame { function, next: 0, regs, stack: Vec::new() }
}

/// Runs up to a step that leaves the function or waits.
fn straight(
    frame: &mut Frame,
    code: &Code<'_>,
    memory: &mut Memory,
    access: &Access,
    scratch: &mut Vec<u64>,
) -> Result<(), Fault> {
    let Frame { next, regs, stack, .. } = frame;
    loop {
        let mut target = *next + 1;
        match &code.steps[*next] {
            Step::Call { .. } | Step::Meet(_) | Step::Async(_) | Step::Signal(_) | Step::Fence | Step::Tiles(_) => {
                return Ok(());
            }
            Step::Return => {
                return Ok(());
            }
            Step::Jump { target: to } => target = *to,
            Step::Unless { cond, target: to } => {
                if regs[*cond] == 0 {
                    target = *to;
                }
            }
            Step::LoopTest { i, hi, step, exit } => {
                if regs[*step] as i64 <= 0 {
                    return Err(Fault::Operand("the loop's step is not positive"));
                }
                if regs[*i] as i64 >= regs[*hi] as i64 {
                    target = *exit;
                }
            }
            Step::LoopNext { i, step, head } => {
                let sum = (regs[*i] as i64).checked_add(regs[*step] as i64);
                regs[*i] = sum.ok_or(Fault::Operand("the loop's counter overflows"))? as u64;
                target = *head;
            }
            Step::Stack { to, bytes } => {
                let addr = memory.alloc(None, *bytes as usize, false)?;
                stack.push(addr);
                regs[*to] = addr.0;
            }
            Step::Thread { to } => regs[*to] = u64::from(access.thread - access.first),
            Step::Shared { to } => regs[*to] = access.shared.0,
            Step::Move { to, from } => {
                scratch.clear();
                scratch.extend(from.iter().map(|f| regs[*f]));
                to.iter().zip(scratch.iter()).for_each(|(t, v)| regs[*t] = *v);
            }
            Step::Load { .. } | Step::Store { .. } => transfer(&code.steps[*next], regs, memory, access)?,
            step => lanes(step, regs)?,
        }
        *next = target;
    }
}

/// Steps that compute lanes from lanes.
fn lanes(step: &Step, regs: &mut [u64]) -> Result<(), Fault> {
    match step {
        Step::Fill { to, lanes, bits } => regs[*to..to + lanes].fill(*bits),
        Step::Map1 { f, to, lanes, a } => {
            for i in 0..*lanes {
                regs[to + i] = f(regs[a + i])?;
            }
        }
        Step::Map2 { f, to, lanes, a, b } => {
            for i in 0..*lanes {
                regs[to + i] = f(regs[a + i], regs[b + i])?;
            }
        }
        Step::Map3 { f, to, lanes, a, a_stride, b, c } => {
            for i in 0..*lanes {
                regs[to + i] = f(regs[a + i * a_stride], regs[b + i], regs[c + i])?;
            }
        }
        Step::Pick { to, from } => {
            for (i, source) in from.iter().enumerate() {
                regs[to + i] = regs[*source];
            }
        }
        Step::Table { to, lanes, table, index } => {
            for i in 0..*lanes {
                let at = regs[index + i] as usize;
                if at >= 16 {
                    return Err(Fault::Operand("the index of a table is not less than 16"));
                }
                regs[to + i] = regs[table + i / 16 * 16 + at];
            }
        }
        Step::Lookup { to, lanes, table, index } => {
            for i in 0..*lanes {
                regs[to + i] = regs[table + (regs[index + i] % 16) as usize];
            }
        }
        Step::Repack { to, lanes, bytes, a, a_bytes } => repack(regs, (*to, *lanes, *bytes), (*a, *a_bytes)),
        _ => unreachable!("the other steps are handled by the caller"),
    }
    Ok(())
}

fn repack(regs: &mut [u64], (to, lanes, bytes): (usize, usize, usize), (a, a_bytes): (usize, usize)) {
    for i in 0..lanes {
        let source = |byte: usize| (regs[a + byte / a_bytes] >> (8 * (byte % a_bytes))) & 0xff;
        regs[to + i] = (0..bytes).map(|k| source(i * bytes + k) << (8 * k)).sum();
    }
}

/// Loads and stores.
fn transfer(step: &Step, regs: &mut [u64], memory: &mut Memory, access: &Access) -> Result<(), Fault> {
    let place = |ptr: u64, offset: i32, len: usize, align: u32| Place {
        addr: Addr(ptr.wrapping_add_signed(i64::from(offset))),
        len,
        align,
    };
    match step {
        Step::Load { to, lanes, bytes, ptr, offset, align, constant } => {
            let place = place(regs[*ptr], *offset, lanes * bytes, *align);
            let data = if *constant { memory.load_constant(place, access) } else { memory.load(place, access) }?;
            for (reg, data) in regs[*to..to + lanes].iter_mut().zip(data.chunks_exact(*bytes)) {
                *reg = data.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            }
        }
        Step::Store { from, lanes, bytes, ptr, offset, align } => {
            let data = memory.store(place(regs[*ptr], *offset, lanes * bytes, *align), access)?;
            for (reg, data) in regs[*from..from + lanes].iter().zip(data.chunks_exact_mut(*bytes)) {
                data.copy_from_slice(&reg.to_le_bytes()[..*bytes]);
            }
        }
        _ => unreachable!("the other steps are handled by the caller"),
    }
    Ok(())
}
