/// Metrics in Prometheus' text form, with the names, labels and buckets that dashboards for vLLM read.
struct MetricsText {
    private let prefix: String
    private let labels: String
    private(set) var text = ""

    init(prefix: String, model: String) {
        self.prefix = prefix
        labels = "model_name=\"\(Self.escaped(model))\",engine=\"0\""
    }

    static func text(
        _ values: ServerMetrics.Values, _ counts: ServiceCounts, prefix: String, model: String
    ) -> String {
        var writer = MetricsText(prefix: prefix, model: model)
        writer.write(counts)
        writer.write(values)
        return writer.text
    }

    private mutating func write(_ counts: ServiceCounts) {
        gauge("num_requests_running", "Sequences that run.", Double(counts.running))
        gauge("num_requests_waiting", "Requests that wait.", Double(counts.waiting))
        gauge("kv_cache_usage_perc", "Share of the cache's blocks in use, from 0 to 1.", counts.cacheUsage)
        counter("num_preemptions_total", "Sequences that gave their blocks to older ones.", counts.preemptions)
        counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", counts.prefixQueriedTokens)
        counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", counts.prefixFoundTokens)
        counter("engine_steps_total", "Steps of the engine.", counts.steps)
        write(
            Histogram(counts.stepTokenBounds.map(Double.init), counts: counts.stepCounts, sum: Double(counts.stepTokens)),
            "iteration_tokens_total", "Tokens of a step of the engine.")
        head("cache_config_info", "gauge", "How the cache is cut.")
        line(
            "cache_config_info",
            "block_size=\"\(counts.blockSize)\",num_gpu_blocks=\"\(counts.blocks)\",max_num_seqs=\"\(counts.slots)\"", "1")
    }

    private mutating func write(_ values: ServerMetrics.Values) {
        counter("prompt_tokens_total", "Tokens of prompts.", values.promptTokens)
        counter("generation_tokens_total", "Tokens of answers.", values.generationTokens)
        head("request_success_total", "counter", "Answers by the reason of their end.")
        for (reason, count) in values.finished.sorted(by: { $0.key < $1.key }) {
            line("request_success_total", "finished_reason=\"\(reason)\"", "\(count)")
        }
        for name in HistogramName.allCases {
            write(values.histograms[name.rawValue], name.text, name.help)
        }
        head("http_requests_total", "counter", "Answered HTTP requests.")
        let keys = values.requests.keys.sorted { ($0.handler, $0.method, $0.status) < ($1.handler, $1.method, $1.status) }
        for key in keys {
            line(
                "http_requests_total",
                "handler=\"\(Self.escaped(key.handler))\",method=\"\(key.method)\",status=\"\(key.status)\"",
                "\(values.requests[key] ?? 0)")
        }
    }

    private mutating func write(_ histogram: Histogram, _ name: String, _ help: String) {
        head(name, "histogram", help)
        var total = 0
        for (bound, count) in zip(histogram.bounds, histogram.counts) {
            total += count
            line(name + "_bucket", "le=\"\(Self.number(bound))\"", "\(total)")
        }
        line(name + "_bucket", "le=\"+Inf\"", "\(histogram.count)")
        line(name + "_sum", "", Self.number(histogram.sum))
        line(name + "_count", "", "\(histogram.count)")
    }

    private mutating func gauge(_ name: String, _ help: String, _ value: Double) {
        head(name, "gauge", help)
        line(name, "", Self.number(value))
    }

    private mutating func counter(_ name: String, _ help: String, _ value: Int) {
        head(name, "counter", help)
        line(name, "", "\(value)")
    }

    private mutating func head(_ name: String, _ type: String, _ help: String) {
        text += "# HELP \(prefix)\(name) \(help)\n# TYPE \(prefix)\(name) \(type)\n"
    }

    private mutating func line(_ name: String, _ more: String, _ value: String) {
        text += "\(prefix)\(name){\(labels)\(more.isEmpty ? "" : "," + more)} \(value)\n"
    }

    private static func number(_ value: Double) -> String { "\(value)" }

    static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
