internal import CNibbleCUDA
package import NibbleCore

/// A GPU as the driver describes it.
package struct CUDADevice: Sendable, Hashable, CustomStringConvertible {
    /// The driver's number.
    package let number: Int
    package let name: String
    /// Compute capability.
    package let major: Int
    package let minor: Int
    package let totalMemory: Int
    package let multiprocessors: Int
    /// Shared memory a block may ask for, in bytes.
    package let sharedMemoryPerBlock: Int
    package let l2Bytes: Int

    package var device: Device { .cuda(number) }

    /// 90 for compute capability 9.0.
    package var level: Int { major * 10 + minor }

    package var description: String {
        "\(name), compute capability \(major).\(minor), \(multiprocessors) multiprocessors, \(totalMemory >> 20) MiB"
    }

    /// Every GPU the driver reports, in its order.
    /// - Throws: ``CUDAUnavailable``, which says what was tried.
    package static func all() throws -> [CUDADevice] {
        let count = try count()
        return try (0..<count).map { try CUDADevice(number: $0, count: count) }
    }

    /// The GPUs of a list such as `1,0`, in its order. One that stands there twice is two devices to everything else, each
    /// with a budget of its own.
    /// - Throws: ``CUDAUnavailable/badList(_:count:)``
    static func listed(_ list: String, among cards: [CUDADevice]) throws -> [CUDADevice] {
        try list.split(separator: ",", omittingEmptySubsequences: false).map { word in
            guard let number = Int(word.filter { !$0.isWhitespace }), cards.indices.contains(number) else {
                throw CUDAUnavailable.badList(list, count: cards.count)
            }
            return cards[number]
        }
    }

    /// - Throws: ``CUDAUnavailable``
    package init(number: Int) throws {
        try self.init(number: number, count: CUDADevice.count())
    }

    private static func count() throws -> Int {
        guard CUDALibraries.driver.opened != nil else { throw CUDAUnavailable.noDriver(CUDALibraries.driver) }
        var status = nibble_cuInit(0)
        var count: Int32 = 0
        if status == 0 { status = nibble_cuDeviceGetCount(&count) }
        if status == Int32(NIBBLE_CUDA_NO_DEVICE) { throw CUDAUnavailable.noDevice }
        guard status == 0 else {
            throw CUDAUnavailable.initializationFailed(
                name: String(cString: nibble_cuErrorName(status)), text: String(cString: nibble_cuErrorText(status)))
        }
        guard count > 0 else { throw CUDAUnavailable.noDevice }
        return Int(count)
    }

    private init(number: Int, count: Int) throws {
        guard number >= 0, number < count else { throw CUDAUnavailable.noSuchDevice(number: number, count: count) }
        let device = Device.cuda(number)
        var handle: Int32 = 0
        try check(nibble_cuDeviceGet(&handle, Int32(number)), "cuDeviceGet", on: device)

        func attribute(_ which: Int) throws -> Int {
            var value: Int32 = 0
            try check(nibble_cuDeviceGetAttribute(&value, Int32(which), handle), "cuDeviceGetAttribute", on: device)
            return Int(value)
        }
        var text = [CChar](repeating: 0, count: 256)
        try check(nibble_cuDeviceGetName(&text, 255, handle), "cuDeviceGetName", on: device)
        var bytes = 0
        try check(nibble_cuDeviceTotalMem(&bytes, handle), "cuDeviceTotalMem", on: device)

        self.number = number
        name = text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        totalMemory = bytes
        major = try attribute(NIBBLE_ATTRIBUTE_MAJOR)
        minor = try attribute(NIBBLE_ATTRIBUTE_MINOR)
        multiprocessors = try attribute(NIBBLE_ATTRIBUTE_MULTIPROCESSORS)
        sharedMemoryPerBlock = try attribute(NIBBLE_ATTRIBUTE_MAX_SHARED_OPTIN)
        l2Bytes = try attribute(NIBBLE_ATTRIBUTE_L2_BYTES)
    }
}
