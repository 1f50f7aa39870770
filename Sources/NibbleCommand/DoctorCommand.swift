import ArgumentParser
import Foundation
import Nibble
import NibbleConformance
import NibbleCore

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Tell what this machine offers, and check that it computes correctly.",
        discussion: "With --selftest every backend operation is compared with a plain reference.")

    @Flag(help: "Run every operation case and compare.")
    var selftest = false

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: "CPU threads (default: all cores).")
    var threads: Int?

    func run() async throws {
        let devices = MachineBackends.backends(threads: threads)
        var results = [(device: String, result: SelfTestResult)]()
        if selftest {
            for backend in devices { results.append((backend.device.description, try SelfTest.run(on: backend))) }
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
            for (operation, error) in result.worstErrors {
                Console.output(
                    String(format: "  %@  worst error %.2e", operation.padding(toLength: 24, withPad: " ", startingAt: 0), error))
            }
            for failure in result.failures { Console.output("  FAILED \(failure)") }
        }
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
                    ("worst_errors", .object(JSONObject(result.worstErrors.map { ($0.operation, JSONValue.double($0.error)) }))),
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
}
