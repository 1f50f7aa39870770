internal import CNibbleCUDA
internal import NibbleCore

/// Turns a driver status into ``BackendError``.
@inline(__always)
func check(_ status: Int32, _ call: StaticString, on device: Device) throws {
    if status != 0 { throw failure(status, "\(call)", on: device) }
}

@inline(never)
func failure(_ status: Int32, _ call: String, on device: Device) -> BackendError {
    let name = String(cString: nibble_cuErrorName(status))
    let text = String(cString: nibble_cuErrorText(status))
    return .deviceFailure(device: device, call: call, message: "\(name), \(text)")
}
