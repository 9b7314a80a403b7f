// The Node client: grpc-js, with the contract loaded from its source.

import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const here = import.meta.dirname;
const contract = path.join(here, "../../../proto");

// How long any call may take, in milliseconds. Far more than one needs.
const patience = 10_000;

const { reprise } = grpc.loadPackageDefinition(
  protoLoader.loadSync(["reprise/v1/retry_service.proto", "reprise/v1/admin_service.proto"], {
    includeDirs: [contract],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
);
const details = protobuf.loadSync([
  path.join(here, "error_details.proto"),
  path.join(contract, "google/rpc/status.proto"),
]);

/** Both services at an address such as `127.0.0.1:7070` or `unix:/run/reprise.sock`. */
export function connect(address) {
  const credentials = grpc.credentials.createInsecure();
  const workers = new reprise.v1.RetryService(address, credentials);
  const admin = new reprise.v1.AdminService(address, credentials);
  return {
    workers: promised(workers),
    admin: promised(admin),
    close() {
      workers.close();
      admin.close();
    },
  };
}

/**
 * The client's calls as promises: `call(request, { patience }, during)`, where `during` is
 * handed the call on its way.
 */
function promised(client) {
  const one = (method, request, options = {}, during = () => {}) =>
    new Promise((resolve, reject) => {
      const settle = (error, answer) => (error ? reject(error) : resolve(answer));
      const deadline = Date.now() + (options.patience ?? patience);
      during(client[method](request, new grpc.Metadata(), { deadline }, settle));
    });
  return new Proxy({}, { get: (_, method) => (...rest) => one(method, ...rest) });
}

/** The typed details of a refused call: `{ infos, violations }`. */
export function explained(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  return unpacked(details.lookupType("google.rpc.Status").decode(bytes).details);
}

/** The same of details at hand, such as those of a batch's item. */
export function unpacked(packed) {
  const of = (name) =>
    packed
      .filter((detail) => detail.type_url.endsWith(`/${name}`))
      .map((detail) => details.lookupType(name).decode(detail.value));
  return {
    infos: of("google.rpc.ErrorInfo"),
    violations: of("google.rpc.BadRequest").flatMap((bad) => bad.fieldViolations),
  };
}

export const { status } = grpc;
