//! Machine code in place of the guest's runtime: a few instructions, and the ELF file around them.

use sandbox_abi::boot::field;

/// Where programs are loaded and begin.
const BASE: u64 = sandbox_abi::layout::RUNTIME;

/// A program in the making. Each method appends one instruction.
#[derive(Clone, Default)]
pub(crate) struct Program(Vec<u8>);

impl Program {
    pub(crate) fn new() -> Self {
        Program::default()
    }

    fn bytes(mut self, opcode: &[u8], operand: &[u8]) -> Self {
        self.0.extend(opcode);
        self.0.extend(operand);
        self
    }

    /// `mov rax, value`
    pub(crate) fn rax(self, value: u64) -> Self {
        self.bytes(&[0x48, 0xb8], &value.to_le_bytes())
    }

    /// `mov rdi, value`
    pub(crate) fn rdi(self, value: u64) -> Self {
        self.bytes(&[0x48, 0xbf], &value.to_le_bytes())
    }

    /// `mov rcx, value`
    pub(crate) fn rcx(self, value: u64) -> Self {
        self.bytes(&[0x48, 0xb9], &value.to_le_bytes())
    }

    /// `mov [address], rax`
    pub(crate) fn store(self, address: u32) -> Self {
        self.bytes(&[0x48, 0x89, 0x04, 0x25], &address.to_le_bytes())
    }

    /// `mov [address], value`, by way of rax
    pub(crate) fn put(self, address: u32, value: u64) -> Self {
        self.rax(value).store(address)
    }

    /// `rep stosq`: fills rcx words at rdi with rax
    pub(crate) fn fill(self) -> Self {
        self.bytes(&[0xf3, 0x48, 0xab], &[])
    }

    /// `rdtsc; imul rax, rax, 0x2d4f5c95; mov [rdi], rax; add rdi, 8; loop`: fills rcx words at rdi with noise
    pub(crate) fn fill_with_noise(self) -> Self {
        self.bytes(
            &[0x0f, 0x31, 0x48, 0x69, 0xc0, 0x95, 0x5c, 0x4f, 0x2d],
            &[0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 0x08, 0xe2, 0xee],
        )
    }

    /// `mov rax, [rdi]`
    pub(crate) fn load(self) -> Self {
        self.bytes(&[0x48, 0x8b, 0x07], &[])
    }

    /// `mov rax, [address]`
    pub(crate) fn load_from(self, address: u32) -> Self {
        self.bytes(&[0x48, 0x8b, 0x04, 0x25], &address.to_le_bytes())
    }

    /// This program, then the other one, which must not jump to places in itself.
    pub(crate) fn append(self, other: Program) -> Self {
        self.bytes(&other.0, &[])
    }

    /// `test rax, rax; jz`: runs `other` if rax is not zero
    pub(crate) fn unless_zero(self, other: Program) -> Self {
        let distance = other.0.len() as u32;
        self.bytes(&[0x48, 0x85, 0xc0, 0x0f, 0x84], &distance.to_le_bytes())
            .bytes(&other.0, &[])
    }

    /// Lets the VMM keep the memory; what begins with it begins with the next instruction.
    pub(crate) fn template(self) -> Self {
        let boot = sandbox_abi::layout::BOOT as u32;
        // Two `put` of 18 bytes, and `out`.
        let next = BASE + self.here() as u64 + 38;
        self.put(boot + field::RESUME_ENTRY as u32, next)
            .put(boot + field::RESUME_STACK as u32, sandbox_abi::layout::RAM)
            .out(sandbox_abi::port::TEMPLATE)
    }

    /// `repe scasq`: goes on over the words at rdi for as long as they equal rax, at most rcx
    pub(crate) fn scan_while_zero(self) -> Self {
        self.bytes(&[0xf3, 0x48, 0xaf], &[])
    }

    /// `mov [address], rcx`
    pub(crate) fn store_rcx(self, address: u32) -> Self {
        self.bytes(&[0x48, 0x89, 0x0c, 0x25], &address.to_le_bytes())
    }

    /// `out port, al`
    pub(crate) fn out(self, port: u8) -> Self {
        self.bytes(&[0xe6], &[port])
    }

    /// `jmp rax`
    pub(crate) fn jump_to_rax(self) -> Self {
        self.bytes(&[0xff, 0xe0], &[])
    }

    /// Begins again at the instruction that stands `from` bytes into the program.
    pub(crate) fn repeat(self, from: usize) -> Self {
        let distance = from as i32 - (self.0.len() as i32 + 5);
        self.bytes(&[0xe9], &distance.to_le_bytes())
    }

    /// Bytes so far.
    pub(crate) fn here(&self) -> usize {
        self.0.len()
    }

    /// Maps the rings at their usual address: what any guest has to do before it can reach them.
    pub(crate) fn map_rings(self) -> Self {
        let directory = 0x3_0000_u32;
        let entry = directory + ((sandbox_abi::layout::RINGS >> 21) as u32 & 511) * 8;
        let (rings, user) = (sandbox_abi::layout::RINGS, 0x87);
        self.put(entry, rings | user)
            .put(entry + 8, (rings + (2 << 20)) | user)
            .put(
                sandbox_abi::layout::BOOT_TABLES as u32 + 8,
                u64::from(directory) | 7,
            )
    }

    /// The program as an ELF executable with one segment, read and execute.
    pub(crate) fn elf(&self) -> Vec<u8> {
        let (header, segment) = (64_u64, 56_u64);
        let offset = header + segment;
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let half = |elf: &mut Vec<u8>, n: u16| elf.extend(n.to_le_bytes());
        let word = |elf: &mut Vec<u8>, n: u32| elf.extend(n.to_le_bytes());
        let long = |elf: &mut Vec<u8>, n: u64| elf.extend(n.to_le_bytes());
        half(&mut elf, 2); // executable
        half(&mut elf, 62); // x86-64
        word(&mut elf, 1);
        long(&mut elf, BASE);
        long(&mut elf, header);
        long(&mut elf, 0);
        word(&mut elf, 0);
        for n in [64, 56, 1, 64, 0, 0] {
            half(&mut elf, n);
        }
        word(&mut elf, 1); // PT_LOAD
        word(&mut elf, 5); // read, execute
        for n in [
            offset,
            BASE,
            BASE,
            self.0.len() as u64,
            self.0.len() as u64,
            4096,
        ] {
            long(&mut elf, n);
        }
        elf.extend(&self.0);
        elf
    }
}
