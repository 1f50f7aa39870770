package import Foundation
import NibbleCore

/// Time and memory of one load.
package struct LoadMeasurement: Sendable {
    package var seconds: Double
    /// Processor time of all threads, user and system.
    package var processorSeconds: Double
    /// Bytes of the checkpoint that were read.
    package var checkpointBytes: Int
    /// Bytes of weights and scales as they are stored.
    package var storedBytes: Int
    /// The largest resident size of the process during the load, mapped pages included. `nil` where the system does not report it.
    package var peakResidentBytes: Int?
    /// Resident size of the process before and after the load.
    package var residentBytesBefore: Int?
    package var residentBytes: Int?

    package var bytesPerSecond: Double { seconds > 0 ? Double(checkpointBytes) / seconds : 0 }
}

extension PretrainedModel {
    /// Loads the model in `folder` and measures it.
    /// - Throws: as ``load(folder:_:)``.
    package static func measuringLoad(
        folder: URL, _ configuration: LoadConfiguration = .init()
    ) throws -> (model: PretrainedModel, measurement: LoadMeasurement) {
        ProcessMemory.resetPeak()
        let before = ProcessMemory.bytes("VmRSS")
        let processor = processorSeconds()
        let start = ContinuousClock.now
        let model = try load(folder: folder, configuration)
        let measurement = LoadMeasurement(
            seconds: (ContinuousClock.now - start) / .seconds(1), processorSeconds: processorSeconds() - processor,
            checkpointBytes: model.report.checkpointBytes, storedBytes: model.report.residentBytes.values.reduce(0, +),
            peakResidentBytes: ProcessMemory.bytes("VmHWM"), residentBytesBefore: before,
            residentBytes: ProcessMemory.bytes("VmRSS"))
        return (model, measurement)
    }

    private static func processorSeconds() -> Double {
        var time = timespec()
        guard clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0 else { return 0 }
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}

/// The memory of this process, from `/proc`.
package enum ProcessMemory {
    /// A field of `/proc/self/status`, in bytes.
    package static func bytes(_ field: String) -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = text.textLines.first(where: { $0.hasPrefix(field + ":") }),
            let kilobytes = line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap({ Int($0) })
        else { return nil }
        return kilobytes * 1024
    }

    /// Resets `VmHWM` to the current size.
    static func resetPeak() {
        guard let handle = FileHandle(forWritingAtPath: "/proc/self/clear_refs") else { return }
        try? handle.write(contentsOf: Data("5".utf8))
        try? handle.close()
    }
}
