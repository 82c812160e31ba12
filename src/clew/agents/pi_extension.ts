// Points pi's providers at a gateway: `clew run pi` names this file and sets the variable.

interface Registry {
  registerProvider(name: string, provider: { baseUrl: string }): void;
}

export default function (pi: Registry): void {
  const providers: Record<string, string> = JSON.parse(process.env.CLEW_PI_PROVIDERS ?? "{}");
  for (const [name, baseUrl] of Object.entries(providers)) {
    pi.registerProvider(name, { baseUrl });
  }
}
