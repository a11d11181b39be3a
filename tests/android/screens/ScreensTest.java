package org.edgemrl.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.system.Os;
import android.view.View;
import android.view.ViewGroup;
import android.widget.EditText;
import android.widget.TextView;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.edgemrl.demo.notes.Note;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;

/** The real screens, on the real framework of Android 15, drawn by its own code. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35, qualifiers = "w360dp-h640dp-xhdpi", shadows = ScreensTest.Environment.class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public class ScreensTest {
    /** What Robolectric has not: an environment that can be set, and folders that can be opened. */
    @Implements(Os.class)
    public static class Environment {
        private static final Map<String, String> VALUES = new HashMap<>();

        @Implementation
        protected static void setenv(String name, String value, boolean overwrite) {
            VALUES.put(name, value);
        }

        @Implementation
        protected static String getenv(String name) {
            return VALUES.get(name);
        }

        @Implementation
        protected static FileDescriptor open(String path, int flags, int mode) {
            return new FileDescriptor();
        }

        @Implementation
        protected static void fsync(FileDescriptor file) {}

        @Implementation
        protected static void close(FileDescriptor file) {}
    }

    private static final File OUT = new File(System.getProperty("edge.screens"));
    private NotesApplication application;

    @Before
    public void notes() throws Exception {
        application = (NotesApplication) RuntimeEnvironment.getApplication();
        settle();
        application.getNotebook().put(List.of(
            new Note("a", "Tomato soup\n\nCut the onions. Boil the water and add salt. Serve hot.", 3),
            new Note("b", "Flat in Lisbon\n\nThe landlord wants the deposit before the first of May.", 2),
            new Note("c", "قائمة التسوق\n\nخبز وحليب وبيض.", 1)));
    }

    /** Waits for the thread of work, then for that of the views, a few times. */
    private void settle() throws Exception {
        for (int i = 0; i < 8; i++) {
            CountDownLatch done = new CountDownLatch(1);
            application.getRunner().getBackground().execute(done::countDown);
            done.await();
            Shadows.shadowOf(android.os.Looper.getMainLooper()).idle();
        }
    }

    private <T extends Activity> T open(Class<T> screen, Intent intent) throws Exception {
        ActivityController<T> controller = intent == null ? Robolectric.buildActivity(screen) : Robolectric.buildActivity(screen, intent);
        T activity = controller.setup().get();
        settle();
        return activity;
    }

    private void shoot(Activity activity, String name) throws Exception {
        View view = activity.getWindow().getDecorView();
        Bitmap bitmap = Bitmap.createBitmap(view.getWidth(), view.getHeight(), Bitmap.Config.ARGB_8888);
        view.draw(new Canvas(bitmap));
        OUT.mkdirs();
        try (FileOutputStream file = new FileOutputStream(new File(OUT, name + ".png"))) {
            bitmap.compress(Bitmap.CompressFormat.PNG, 100, file);
        }
    }

    private static List<View> all(View view) {
        List<View> found = new ArrayList<>();
        found.add(view);
        if (view instanceof ViewGroup) {
            for (int i = 0; i < ((ViewGroup) view).getChildCount(); i++) found.addAll(all(((ViewGroup) view).getChildAt(i)));
        }
        return found;
    }

    /** Each text that is shown has room, and each thing to press is large enough and has a name. */
    private void inspect(Activity activity) {
        int least = (int) (48 * activity.getResources().getDisplayMetrics().density);
        for (View view : all(activity.getWindow().getDecorView())) {
            if (!view.isShown()) continue;
            if (view.isClickable() && !(view instanceof ViewGroup)) {
                assertTrue(view + " is small", view.getHeight() >= least - 1);
                boolean named = view.getContentDescription() != null
                    || view instanceof TextView && (((TextView) view).getText().length() > 0 || ((TextView) view).getHint() != null);
                assertTrue(view + " has no name", named);
            }
        }
    }

    private void everyScreen(String look) throws Exception {
        Intent note = new Intent().putExtra("id", "a");
        NotesActivity list = open(NotesActivity.class, null);
        each(list, "list", look);
        ((EditText) list.findViewById(R.id.search)).setText("salt wat");
        settle();
        each(list, "search", look);
        each(open(NoteActivity.class, note), "note", look);
        each(open(ImportActivity.class, null), "import", look);
        each(open(SyncActivity.class, null), "sync", look);
        VerifyActivity verify = open(VerifyActivity.class, null);
        for (View view : all(verify.getWindow().getDecorView())) {
            if (view instanceof android.widget.Button && view.isEnabled() && view.getHeight() > 0) view.performClick();
        }
        settle();
        long passed = all(verify.getWindow().getDecorView()).stream()
            .filter(view -> view instanceof TextView && ((TextView) view).getText().toString().startsWith("passed: ")).count();
        assertEquals("files, golden vectors and speed", 3, passed);
        each(verify, "verify", look);
        each(open(SettingsActivity.class, null), "settings", look);
    }

    private void each(Activity activity, String screen, String look) throws Exception {
        inspect(activity);
        shoot(activity, screen + "-" + look);
    }

    @Test
    public void light() throws Exception {
        everyScreen("light");
    }

    @Test
    public void dark() throws Exception {
        RuntimeEnvironment.setQualifiers("+night");
        everyScreen("dark");
    }

    @Test
    public void largeFonts() throws Exception {
        RuntimeEnvironment.setFontScale(2f);
        everyScreen("large");
    }

    @Test
    public void rightToLeft() throws Exception {
        RuntimeEnvironment.setQualifiers("+ar-ldrtl");
        everyScreen("rtl");
    }

    @Test
    public void sharedTextBecomesANote() throws Exception {
        Intent shared = new Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, "Shared words");
        ActivityController<NoteActivity> controller = Robolectric.buildActivity(NoteActivity.class, shared).setup();
        settle();
        assertEquals("Shared words", ((EditText) controller.get().findViewById(R.id.text)).getText().toString());
        controller.pause();
        settle();
        assertTrue(application.getNotebook().all().stream().anyMatch(n -> n.getText().equals("Shared words")));
    }

    @Test
    public void aRotationKeepsWhatIsBeingWritten() throws Exception {
        ActivityController<NoteActivity> controller = Robolectric.buildActivity(NoteActivity.class, new Intent().putExtra("id", "a")).setup();
        settle();
        ((EditText) controller.get().findViewById(R.id.text)).setText("Soup, changed");
        controller.recreate();
        settle();
        assertEquals("Soup, changed", ((EditText) controller.get().findViewById(R.id.text)).getText().toString());
        assertEquals("Soup, changed", application.getNotebook().get("a").getText());
    }

    @Test
    public void telemetryIsOff() {
        assertEquals("1", android.system.Os.getenv("ORT_DISABLE_TELEMETRY"));
    }
}
