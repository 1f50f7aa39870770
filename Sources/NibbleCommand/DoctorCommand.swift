import ArgumentParser
import Foundation
import Nibble
import NibbleConformance
import NibbleCore

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Show the devices of this machine, and check that they compute correctly.",
        discussion: "With --selftest every operation of every device is compared with its plain form.")

    @Flag(help: "Run every case of every operation and compare.")
    var selftest = false

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: "CPU threads (default: all cores).")
    var threads: Int?

    func validate() throws {
        if let threads, !(1...LoadOptionsGroup.maximumThreads ~= threads) {
            throw ValidationError("--threads must be from 1 to \(LoadOptionsGroup.maximumThreads), found \(threads)")
        }
    }

    func run() async throws {
        let devices = MachineBackends.backends(threads: threads)
        var results = [(device: String, result: SelfTestResult)]()
        if selftest {
            for backend in devices { results.append((backend.device.description, SelfTest.run(on: backend))) }
        }
        if json { printJSON(devices, results) } else { printText(devices, results) }
        if results.contains(where: { !$0.result.failures.isEmpty }) { throw ExitCode.failure }
    }

    private func printText(_ devices: [any Backend], _ results: [(device: String, result: SelfTestResult)]) {
        for backend in devices { Console.output("\(backend.device): \(backend.summary)") }
        for finding in MachineBackends.findings { Console.output(finding) }
        let hub = HubConfiguration.standard
        Console.output("models from \(hub.endpoint) are kept in \(hub.cacheFolder.path)" + (hub.isOffline ? "; offline" : ""))
        for (device, result) in results {
            Console.output("selftest on \(device): \(result.caseCount - result.failures.count) of \(result.caseCount) cases pass")
            for worst in result.worstCases {
                let operation = worst.operation.padding(toLength: 12, withPad: " ", startingAt: 0)
                Console.output("  \(operation)  \(DoctorCommand.text(worst.share)), \(worst.name)")
            }
            for failure in result.failures { Console.output("  FAILED \(failure)") }
        }
    }

    /// The largest error as a share of the allowed one.
    private static func text(_ share: Double) -> String {
        if share == 0 { return "exact" }
        return share.isFinite ? String(format: "%.1f %% of the allowed error", 100 * share) : "not exact, as it must be"
    }

    private func printJSON(_ devices: [any Backend], _ results: [(device: String, result: SelfTestResult)]) {
        let described = devices.map { backend in
            JSONValue.object(
                JSONObject([("device", .string(backend.device.description)), ("summary", .string(backend.summary))]))
        }
        let tested = results.map { device, result in
            JSONValue.object(
                JSONObject([
                    ("device", .string(device)), ("cases", .int(result.caseCount)),
                    ("failures", .array(result.failures.map(JSONValue.string))),
                    ("worst_cases", .object(JSONObject(result.worstCases.map { ($0.operation, DoctorCommand.value($0)) }))),
                ]))
        }
        let findings = MachineBackends.findings.map(JSONValue.string)
        let hub = HubConfiguration.standard
        var members: [(String, JSONValue)] = [
            ("devices", .array(described)), ("libraries", .array(findings)),
            (
                "hub",
                .object(
                    JSONObject([
                        ("endpoint", .string(hub.endpoint)), ("cache", .string(hub.cacheFolder.path)),
                        ("offline", .bool(hub.isOffline)),
                    ]))
            ),
        ]
        if selftest { members.append(("selftest", .array(tested))) }
        Console.output(JSONValue.object(JSONObject(members)).encoded(.pretty))
    }

    /// `share_of_allowed` is null where no error is allowed and there is one.
    private static func value(_ worst: WorstCase) -> JSONValue {
        let share: JSONValue = worst.share.isFinite ? .double(worst.share) : .null
        return .object(JSONObject([("share_of_allowed", share), ("case", .string(worst.name))]))
    }
}
