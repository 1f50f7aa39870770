import Foundation
import Glibc
import NibbleCore

/// A file mapped into memory, private and read-only. The mapping lives as long as its storage.
struct MappedFile: Sendable {
    let url: URL
    let storage: Storage
    /// False where the bytes are what a compressed file unpacks to: its pages cannot be read again.
    let isFileBacked: Bool

    var path: String { url.path }
    var byteCount: Int { storage.byteCount }

    /// The whole file. Valid while the storage is alive.
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: storage.address), count: storage.byteCount)
    }

    /// - Throws: ``CheckpointError/unreadable(file:reason:)``.
    init(_ url: URL) throws {
        self.url = url
        isFileBacked = true
        let descriptor = Glibc.open(url.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw CheckpointError.unreadable(file: url.path, reason: systemMessage()) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw CheckpointError.unreadable(file: url.path, reason: systemMessage())
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw CheckpointError.unreadable(file: url.path, reason: "not a regular file")
        }
        let length = Int(status.st_size)
        guard length > 0 else {
            storage = .host(byteCount: 0)
            return
        }
        guard let memory = mmap(nil, length, PROT_READ, MAP_PRIVATE, descriptor, 0), memory != MAP_FAILED else {
            throw CheckpointError.unreadable(file: url.path, reason: systemMessage())
        }
        storage = Storage(device: .cpu, byteCount: length, address: UInt(bitPattern: memory)) { address in
            munmap(UnsafeMutableRawPointer(bitPattern: address), length)
        }
    }

    /// Memory that stands for the unpacked content of the file at `url`.
    init(_ url: URL, unpacked storage: Storage) {
        self.url = url
        self.storage = storage
        isFileBacked = false
    }

    /// Starts reading the pages that `range` touches.
    func prefetch(_ range: Range<Int>) {
        let first = range.lowerBound / Self.pageSize * Self.pageSize
        advise(first..<range.upperBound, MADV_WILLNEED)
    }

    /// Releases the pages that lie completely inside `range`.
    func dropPages(_ range: Range<Int>) {
        let first = (range.lowerBound + Self.pageSize - 1) / Self.pageSize * Self.pageSize
        let end = range.upperBound == byteCount ? byteCount : range.upperBound / Self.pageSize * Self.pageSize
        if first < end { advise(first..<end, MADV_DONTNEED) }
    }

    private func advise(_ range: Range<Int>, _ advice: Int32) {
        // An empty file is not mapped.
        guard isFileBacked, !range.isEmpty, byteCount > 0 else { return }
        madvise(UnsafeMutableRawPointer(bitPattern: storage.address + UInt(range.lowerBound)), range.count, Int32(advice))
    }

    private static let pageSize = max(sysconf(Int32(_SC_PAGESIZE)), 4096)
}

func systemMessage() -> String { String(cString: strerror(errno)) }

extension MappedFile {
    /// A tensor over bytes of the file: a view, or a copy where the data is not aligned for its dtype.
    /// - Precondition: the bytes lie inside the file.
    func tensor(_ dtype: DType, _ shape: Shape, at byteOffset: Int) -> Tensor {
        let view = Tensor(storage: storage, byteOffset: byteOffset, dtype: dtype, shape: shape)
        guard view.address % UInt(dtype.byteCount) != 0 else { return view }
        let copy = Tensor.host(dtype, shape)
        copy.mutableHostBytes.copyMemory(from: view.hostBytes)
        return copy
    }

    func malformed(_ tensor: String? = nil, expected: String, found: String) -> CheckpointError {
        .malformed(file: path, tensor: tensor, expected: expected, found: found)
    }
}
