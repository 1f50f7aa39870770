internal import CNibbleCUDA
internal import NibbleCore

// Owners of driver objects: made once, destroyed when the last user lets go. Each keeps its context alive.

/// A GPU's primary context, shared with whatever else in the process uses the card.
final class CUDAContext: @unchecked Sendable {
    let device: Device
    let handle: NibbleContext
    private let ordinal: Int32

    /// - Parameter device: the name errors are reported under.
    init(_ card: CUDADevice, as device: Device) throws {
        self.device = device
        var ordinal: Int32 = 0
        try check(nibble_cuDeviceGet(&ordinal, Int32(card.number)), "cuDeviceGet", on: device)
        self.ordinal = ordinal
        var context: NibbleContext?
        try check(nibble_cuDevicePrimaryCtxRetain(&context, ordinal), "cuDevicePrimaryCtxRetain", on: device)
        guard let context else { throw failure(0, "cuDevicePrimaryCtxRetain", on: device) }
        handle = context
    }

    /// Every thread that calls the driver needs this first; it costs next to nothing when nothing changes.
    func makeCurrent() throws {
        try check(nibble_cuCtxSetCurrent(handle), "cuCtxSetCurrent", on: device)
    }

    deinit { _ = nibble_cuDevicePrimaryCtxRelease(ordinal) }
}

final class CUDAStream: @unchecked Sendable {
    let context: CUDAContext
    let handle: NibbleStream

    init(_ context: CUDAContext) throws {
        self.context = context
        try context.makeCurrent()
        var stream: NibbleStream?
        let flags = UInt32(NIBBLE_STREAM_NON_BLOCKING)
        try check(nibble_cuStreamCreate(&stream, flags), "cuStreamCreate", on: context.device)
        guard let stream else { throw failure(0, "cuStreamCreate", on: context.device) }
        handle = stream
    }

    func synchronize() throws {
        try check(nibble_cuStreamSynchronize(handle), "cuStreamSynchronize", on: context.device)
    }

    func wait(for event: CUDAEvent) throws {
        try check(nibble_cuStreamWaitEvent(handle, event.handle, 0), "cuStreamWaitEvent", on: context.device)
    }

    deinit {
        try? context.makeCurrent()
        _ = nibble_cuStreamDestroy(handle)
    }
}

final class CUDAEvent: @unchecked Sendable {
    let context: CUDAContext
    let handle: NibbleEvent

    init(_ context: CUDAContext, measuresTime: Bool = false) throws {
        self.context = context
        try context.makeCurrent()
        var event: NibbleEvent?
        let flags = measuresTime ? 0 : UInt32(NIBBLE_EVENT_DISABLE_TIMING)
        try check(nibble_cuEventCreate(&event, flags), "cuEventCreate", on: context.device)
        guard let event else { throw failure(0, "cuEventCreate", on: context.device) }
        handle = event
    }

    func record(on stream: CUDAStream) throws {
        try check(nibble_cuEventRecord(handle, stream.handle), "cuEventRecord", on: context.device)
    }

    func synchronize() throws {
        try check(nibble_cuEventSynchronize(handle), "cuEventSynchronize", on: context.device)
    }

    /// Milliseconds from `start`; both recorded, and this one reached.
    func milliseconds(since start: CUDAEvent) throws -> Float {
        var time: Float = 0
        try check(
            nibble_cuEventElapsedTime(&time, start.handle, handle), "cuEventElapsedTime", on: context.device)
        return time
    }

    deinit {
        try? context.makeCurrent()
        _ = nibble_cuEventDestroy(handle)
    }
}

/// Loaded code.
final class CUDAModule: @unchecked Sendable {
    let context: CUDAContext
    private let handle: NibbleModule

    init(_ context: CUDAContext, image: [UInt8]) throws {
        self.context = context
        try context.makeCurrent()
        var module: NibbleModule?
        var log = [CChar](repeating: 0, count: 4096)
        let status = image.withUnsafeBytes { nibble_cuModuleLoad(&module, $0.baseAddress, &log, log.count) }
        guard status == 0, let module else {
            let name = String(cString: nibble_cuErrorName(status))
            let text = log.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            throw BackendError.deviceFailure(
                device: context.device, call: "cuModuleLoadDataEx",
                message: "\(name), \(text.isEmpty ? String(cString: nibble_cuErrorText(status)) : text)")
        }
        handle = module
    }

    func function(_ name: String) throws -> NibbleFunction {
        var function: NibbleFunction?
        let status = nibble_cuModuleGetFunction(&function, handle, name)
        guard status == 0, let function else { throw failure(status, "cuModuleGetFunction(\(name))", on: context.device) }
        return function
    }

    deinit {
        try? context.makeCurrent()
        _ = nibble_cuModuleUnload(handle)
    }
}

/// Page-locked host memory: the GPU reads and writes it while the host goes on.
final class PinnedMemory: @unchecked Sendable {
    let context: CUDAContext
    let bytes: UnsafeMutableRawBufferPointer

    init(_ context: CUDAContext, byteCount: Int) throws {
        self.context = context
        try context.makeCurrent()
        var address: UnsafeMutableRawPointer?
        try check(nibble_cuMemHostAlloc(&address, byteCount, 0), "cuMemHostAlloc", on: context.device)
        bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    }

    deinit {
        try? context.makeCurrent()
        _ = nibble_cuMemFreeHost(bytes.baseAddress)
    }
}
